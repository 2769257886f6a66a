// Configuration: one table of keys, filled from YAML, environment and flags in rising precedence.
//
// The table is the documentation: `uccp config explain` and docs/settings.md are written from it. Values that name
// outside hosts by default in the specification are unset here: unset means the embedded implementation.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::server {

enum class KeyType : uint8_t { kString, kInteger, kPort, kBool, kDuration, kSecret };
enum class KeyEffect : uint8_t {
  kActs,    // read at start
  kLive,    // and again when it changes while the node runs
  kUnused,  // accepted, so that one configuration fits all versions; says so when set
};

struct ConfigKey {
  std::string_view name;  // "grpc_port", as in YAML; flag --grpc-port; variable GRPC_PORT
  KeyType type;
  std::string_view fallback;  // default, as text; empty: none
  KeyEffect effect;
  std::string_view help;
};
std::span<const ConfigKey> config_keys();

// In rising precedence. What the cluster sets holds for all nodes whose own environment and flags leave it open.
enum class ConfigSource : uint8_t { kDefault, kFile, kCluster, kEnvironment, kFlag };
const ConfigKey* find_config_key(std::string_view name);
std::string_view source_name(ConfigSource source);

class Config {
 public:
  struct Value {
    std::string text;
    ConfigSource source = ConfigSource::kDefault;
    std::string origin;  // "config.yaml:3", "GRPC_PORT", "--grpc-port"
  };

  // `yaml` may be empty. Errors: invalid CONFIG_INVALID naming key, place and a suggestion for an unknown key.
  static Result<Config> load(std::string_view yaml, std::string_view yaml_name,
                             const std::map<std::string, std::string>& environment,
                             const std::map<std::string, std::string>& flags);

  // The same with another content of the file. Errors: those of load().
  Result<Config> with_file(std::string_view yaml) const { return load(yaml, yaml_name_, environment_, flags_); }
  const std::string& file() const { return yaml_name_; }
  // With what the cluster sets; names that this version does not know are left out.
  Config with_cluster(const std::map<std::string, std::string>& values) const;
  // Errors: not_found SETTING_NOT_FOUND with a suggestion; invalid SETTING_INVALID for a value of another type.
  static Status check(std::string_view name, const std::string& text);

  const std::string& text(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  // Errors: invalid CONFIG_INVALID, which names where the value was set. Requires min >= 0.
  Result<uint64_t> integer_between(std::string_view key, int64_t min, int64_t max) const;
  bool boolean(std::string_view key) const;
  int64_t duration_ms(std::string_view key) const;
  bool is_set(std::string_view key) const { return !text(key).empty(); }
  const std::map<std::string, Value, std::less<>>& values() const { return values_; }
  // Keys that were set and have no effect in this version, with where they were set.
  std::vector<std::string> unused() const;
  // One line a key: name, value (secrets hidden), source, help.
  std::string explain() const;

 private:
  Status set(std::string_view key, std::string text, ConfigSource source, std::string origin);
  std::map<std::string, Value, std::less<>> values_;
  std::string yaml_name_;
  std::map<std::string, std::string> environment_;  // of keys
  std::map<std::string, std::string> flags_;
};

// "90s", "1h30m", "250ms" or a bare number of seconds.
Result<int64_t> parse_duration_ms(std::string_view text);

}  // namespace uccp::server
