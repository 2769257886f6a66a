#include "server/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "call/policy/words.h"

namespace uccp::server {
namespace {

std::string upper(std::string_view name) {
  std::string out(name);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

std::string_view nearest_key(std::string_view name) {
  const auto keys = config_keys();
  return std::ranges::min_element(keys, {}, [&](const ConfigKey& key) { return call::edit_distance(key.name, name); })
      ->name;
}

Status unknown_key(std::string_view name, std::string_view origin) {
  return Status(
      Code::kInvalid, "CONFIG_INVALID",
      fmt::format("{}: there is no configuration key '{}'; did you mean '{}'? 'uccp config explain' lists all", origin,
                  name, nearest_key(name)));
}

bool parse_bool(std::string_view text, bool& out) {
  if (text == "true" || text == "1" || text == "yes" || text == "on") return out = true;
  out = false;
  return text == "false" || text == "0" || text == "no" || text == "off";
}

bool parse_integer(std::string_view text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::string expected(KeyType type) {
  switch (type) {
    case KeyType::kInteger: return "an integer";
    case KeyType::kPort: return "a port, 0 (any free one) to 65535";
    case KeyType::kBool: return "true or false";
    case KeyType::kDuration: return "a duration such as 90s, 5m or 1h30m";
    default: return "a text";
  }
}

bool well_formed(KeyType type, const std::string& text) {
  bool flag = false;
  int64_t number = 0;
  switch (type) {
    case KeyType::kInteger: return parse_integer(text, number) && number >= 0;
    case KeyType::kPort: return parse_integer(text, number) && number >= 0 && number <= 65535;
    case KeyType::kBool: return parse_bool(text, flag);
    case KeyType::kDuration: return parse_duration_ms(text).has_value();
    default: return true;
  }
}

}  // namespace

const ConfigKey* find_config_key(std::string_view name) {
  const auto keys = config_keys();
  const auto it = std::ranges::find(keys, name, &ConfigKey::name);
  return it == keys.end() ? nullptr : &*it;
}

Result<int64_t> parse_duration_ms(std::string_view text) {
  const auto malformed = [&] {
    return fail(Code::kInvalid, "DURATION_INVALID",
                "'" + std::string(text) + "' is no duration such as 90s, 5m or 1h30m");
  };
  int64_t total = 0;
  std::string_view rest = text;
  if (rest.empty()) return malformed();
  while (!rest.empty()) {
    double number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error != std::errc() || number < 0 || number > 1e9) return malformed();
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const size_t unit_size = std::min(rest.find_first_of("0123456789."), rest.size());
    const std::string_view unit = rest.substr(0, unit_size);
    rest.remove_prefix(unit_size);
    const double factor = unit.empty() || unit == "s" ? 1000
                          : unit == "ms"              ? 1
                          : unit == "m"               ? 60'000
                          : unit == "h"               ? 3'600'000
                          : unit == "d"               ? 86'400'000
                                                      : -1;
    if (factor < 0) return malformed();
    total += static_cast<int64_t>(number * factor);
  }
  return total;
}

std::string_view source_name(ConfigSource source) {
  static constexpr std::string_view names[] = {"default", "file", "cluster", "environment", "flag"};
  return names[static_cast<size_t>(source)];
}

Status Config::set(std::string_view name, std::string text, ConfigSource source, std::string origin) {
  const ConfigKey* key = find_config_key(name);
  if (key == nullptr) return unknown_key(name, origin);
  if (!text.empty() && !well_formed(key->type, text)) {
    const std::string shown = key->type == KeyType::kSecret ? "the value" : "'" + text + "'";
    return Status(Code::kInvalid, "CONFIG_INVALID",
                  fmt::format("{}: {} of '{}' is not {}", origin, shown, name, expected(key->type)));
  }
  values_[std::string(name)] = {std::move(text), source, std::move(origin)};
  return Status::ok();
}

Result<Config> Config::load(std::string_view yaml, std::string_view yaml_name,
                            const std::map<std::string, std::string>& environment,
                            const std::map<std::string, std::string>& flags) {
  Config config;
  config.yaml_name_ = yaml_name;
  config.flags_ = flags;
  for (const ConfigKey& key : config_keys()) {
    config.values_[std::string(key.name)] = {std::string(key.fallback), ConfigSource::kDefault, "default"};
  }
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (!root.IsNull() && !root.IsMap()) {
      return fail(Code::kInvalid, "CONFIG_INVALID", std::string(yaml_name) + ": the file must hold 'key: value' lines");
    }
    for (const auto& item : root) {
      const std::string origin = fmt::format("{}:{}", yaml_name, item.first.Mark().line + 1);
      if (!item.second.IsScalar() && !item.second.IsNull()) {
        return fail(Code::kInvalid, "CONFIG_INVALID", origin + ": the value must be one word or text");
      }
      UCCP_RETURN_IF_ERROR(config.set(item.first.as<std::string>(), item.second.IsNull() ? "" : item.second.Scalar(),
                                      ConfigSource::kFile, origin));
    }
  } catch (const YAML::Exception& error) {
    return fail(Code::kInvalid, "CONFIG_INVALID", std::string(yaml_name) + ": " + error.what());
  }
  for (const ConfigKey& key : config_keys()) {
    const auto it = environment.find(upper(key.name));
    if (it == environment.end()) continue;
    config.environment_.insert(*it);
    UCCP_RETURN_IF_ERROR(config.set(key.name, it->second, ConfigSource::kEnvironment, it->first));
  }
  for (const auto& [flag, value] : flags) {
    std::string name = flag;
    std::ranges::replace(name, '-', '_');
    UCCP_RETURN_IF_ERROR(config.set(name, value, ConfigSource::kFlag, "--" + flag));
  }
  return config;
}

Config Config::with_cluster(const std::map<std::string, std::string>& values) const {
  Config out = *this;
  for (const auto& [name, text] : values) {
    const auto it = out.values_.find(name);
    if (it == out.values_.end() || it->second.source > ConfigSource::kCluster || !check(name, text).is_ok()) continue;
    it->second = {text, ConfigSource::kCluster, "the cluster"};
  }
  return out;
}

Status Config::check(std::string_view name, const std::string& text) {
  const ConfigKey* key = find_config_key(name);
  if (key == nullptr) {
    return Status(Code::kNotFound, "SETTING_NOT_FOUND",
                  fmt::format("there is no setting '{}'; did you mean '{}'? config get lists all", name,
                              nearest_key(name)))
        .with_resource("setting", std::string(name));
  }
  if (text.empty() || well_formed(key->type, text)) return Status::ok();
  const std::string shown = key->type == KeyType::kSecret ? "the value" : "'" + text + "'";
  return Status(Code::kInvalid, "SETTING_INVALID",
                fmt::format("{} of '{}' is not {}", shown, name, expected(key->type)));
}

const std::string& Config::text(std::string_view key) const {
  const auto it = values_.find(key);
  UCCP_CHECK(it != values_.end(), "a configuration key that is read is in the table");
  return it->second.text;
}

int64_t Config::integer(std::string_view key) const {
  int64_t out = 0;
  parse_integer(text(key), out);
  return out;
}

Result<uint64_t> Config::integer_between(std::string_view key, int64_t min, int64_t max) const {
  const int64_t number = integer(key);
  if (number >= min && number <= max) return static_cast<uint64_t>(number);
  const Value& value = values().find(key)->second;
  return fail(
      Code::kInvalid, "CONFIG_INVALID",
      fmt::format("{}: '{}' of '{}' is out of range; it must be {} to {}", value.origin, value.text, key, min, max));
}

bool Config::boolean(std::string_view key) const {
  bool out = false;
  parse_bool(text(key), out);
  return out;
}

int64_t Config::duration_ms(std::string_view key) const { return parse_duration_ms(text(key)).value_or(0); }

std::vector<std::string> Config::unused() const {
  std::vector<std::string> out;
  for (const auto& [name, value] : values_) {
    if (value.source != ConfigSource::kDefault && find_config_key(name)->effect == KeyEffect::kUnused) {
      out.push_back(value.origin + " (" + name + ")");
    }
  }
  return out;
}

std::string Config::explain() const {
  std::string out;
  for (const ConfigKey& key : config_keys()) {
    const Value& value = values_.at(std::string(key.name));
    const bool hidden = key.type == KeyType::kSecret && !value.text.empty();
    fmt::format_to(std::back_inserter(out), "{:<22} {:<18} {:<12} {}{}\n", key.name,
                   value.text.empty() ? "(unset)"
                   : hidden           ? "(hidden)"
                                      : value.text,
                   source_name(value.source), key.help,
                   key.effect == KeyEffect::kUnused ? " [no effect in this version]"
                   : key.effect == KeyEffect::kLive ? " [changes while the node runs]"
                                                    : "");
  }
  return out;
}

}  // namespace uccp::server
