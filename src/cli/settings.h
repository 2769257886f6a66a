// Settings: the global flags, and the context (cluster and credentials) that they, the environment and the context file
// select. Precedence: flag, environment, context in use, ./data/dev.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/flag.h"
#include "cli/io.h"
#include "cli/transport.h"

namespace uccp::cli {

enum class Format : uint8_t { kTable, kWide, kJson, kYaml, kName, kJsonl, kCsv, kJsonPath, kManifest };

struct Settings {
  std::string context_file;
  std::string context;  // name of a context of the user
  std::string server;
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  std::string token;
  Format format = Format::kTable;
  std::string json_path;  // with Format::kJsonPath
  std::string name_space;
  std::string consistency;
  std::string request_id;
  int64_t timeout_ms = -1;  // -1: the command's default; 0: none
  std::string data;         // --data: the body as JSON
  std::string data_file;    // -f: the body as a file
  bool anonymous = false;   // without any credential: whoever signs in has none yet
  bool dry_run = false;     // check changes and make none
  bool quiet = false;
  bool no_color = false;
  bool help = false;
  bool version = false;

  bool machine_errors() const { return format == Format::kJson || format == Format::kJsonl; }
};

// The global flags, writing into `settings`, which must outlive them.
std::vector<Flag> global_flags(Settings& settings);

// Errors: invalid USAGE or CONTEXT_INVALID (file missing, not JSON, no address).
Result<Context> load_context(const Settings& settings, const Io& io);

// "30s", "2m" or a number of seconds to milliseconds. Errors: invalid USAGE.
Result<int64_t> parse_timeout_ms(std::string_view text);

}  // namespace uccp::cli
