// The server program. All it does itself is to read its command line.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/log.h"
#include "doors/grpc_client/process.h"
#include "runtime/core_dumps.h"
#include "runtime/os_random.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "server/config.h"
#include "server/config_docs.h"
#include "server/dev.h"
#include "server/encryption.h"
#include "server/node_files.h"
#include "server/process.h"
#include "server/restore.h"

extern char** environ;

// Read by jemalloc at the start: what was freed goes back to the system after a second, on a thread of its own.
extern "C" const char* malloc_conf;
const char* malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

namespace uccp::server {
namespace {

constexpr const char* kHelp = R"(uccp - the Unified Compute & Coordination Platform, server

Usage:
  uccp dev [--data-dir DIR] [--ports auto] [--no-agent] [--KEY VALUE ...]
      One node with everything embedded: its own certificates, one agent. DIR defaults to ./data.
      '--ports auto' takes free ports; DIR/dev.json says where everything is while it runs.
  uccp --config FILE [--KEY VALUE ...]
      A configured node. Keys come from FILE (YAML), the environment (GRPC_PORT) and flags (--grpc-port), the
      last one wins.
  uccp cluster init --data-dir DIR [--nodes N] [--ports auto] [--cluster-id ID] [--host HOST]
      Makes certificates and configurations of N nodes (default 3) on this machine: DIR/n1/uccp.yaml, ...
  uccp cluster prepare --data-dir DIR --node n4 [--ports auto] [--host HOST]
      The same for one more node, which joins when it is started.
  uccp cluster context --data-dir DIR
      Writes DIR/cluster.json, the context file of the nodes that serve.
  uccp restore --from BACKUP_DIR/ID --data-dir DIR [--node n1] [--cluster-id ID] [--backup-key-file FILE]
      The state of a backup into an empty data directory (for 'uccp dev': its --data-dir). On every founder of a
      cluster, from the same backup. Without a key file: keys/backup.key beside the folder of the backups.
  uccp backup verify --from BACKUP_DIR/ID [--backup-key-file FILE]
      Reads every byte of a backup and says what it holds.
  uccp keys rotate --data-dir DIR --encryption-key-file FILE [--new-key-file NEW]
      A new data key for an encrypted directory whose server is stopped; with NEW all of them are wrapped by that
      master key from now on.
  uccp config explain [--config FILE] [--KEY VALUE ...]
      Every key with its value, where that came from, and what it does.
  uccp config docs
      The page docs/settings.md: every key with its default.
  uccp version | help

Exit codes: 0 stopped in order, 2 wrong usage or configuration, 5 the data directory cannot be used, 7 unavailable.
)";

struct CommandLine {
  std::vector<std::string> words;
  std::map<std::string, std::string> flags;
};

Result<CommandLine> parse(int argc, char** argv) {
  CommandLine line;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (!word.starts_with("--")) {
      line.words.push_back(std::move(word));
      continue;
    }
    word = word.substr(2);
    if (word == "help" || word == "version") {
      line.words.insert(line.words.begin(), word);
      continue;
    }
    if (word == "no-agent") {
      line.flags[word] = "true";
      continue;
    }
    if (const size_t equals = word.find('='); equals != std::string::npos) {
      line.flags[word.substr(0, equals)] = word.substr(equals + 1);
    } else if (i + 1 < argc) {
      line.flags[word] = argv[++i];
    } else {
      return fail(Code::kInvalid, "USAGE", "the flag --" + word + " needs a value");
    }
  }
  return line;
}

std::string take_flag(CommandLine& line, const std::string& name, std::string fallback) {
  const auto node = line.flags.extract(name);
  return node.empty() ? fallback : node.mapped();
}

int usage_error(const std::string& message) {
  fmt::print(stderr, "error: {}\nhint: 'uccp help' shows the usage\n", message);
  return 2;
}

Result<Config> load_config(CommandLine& line) {
  runtime::PosixFileSystem files;
  const std::string path = take_flag(line, "config", "");
  std::string yaml;
  if (!path.empty()) {
    UCCP_TRY(yaml, read_file(files, path, 1u << 20));
  }
  std::map<std::string, std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) environment[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return Config::load(yaml, path, environment, line.flags);
}

int run_cluster(CommandLine& line, const std::string& verb) {
  runtime::PosixFileSystem files;
  const runtime::RealClock clock;
  ClusterInitOptions options;
  options.directory = absolute(take_flag(line, "data-dir", "data"));
  options.nodes = std::atoi(take_flag(line, "nodes", "3").c_str());
  options.cluster_id = take_flag(line, "cluster-id", "");
  options.host = take_flag(line, "host", "127.0.0.1");
  const std::string ports = take_flag(line, "ports", "");
  if (!ports.empty() && ports != "auto") return usage_error("--ports takes only 'auto'");
  options.auto_ports = ports == "auto";
  const std::string node = take_flag(line, "node", "");
  if (!line.flags.empty()) return usage_error("there is no flag --" + line.flags.begin()->first);
  Status status;
  if (verb == "init") {
    status = init_cluster(files, clock, options);
  } else if (verb == "prepare") {
    const auto id = node_id(node);
    if (!id) return usage_error("--node must name the new node, such as n4");
    status = prepare_node(files, clock, options, *id);
  } else if (verb == "context") {
    auto json = cluster_context(files, clock, options.directory);
    status = json ? write_file_atomically(files, options.directory + "/cluster.json", *json) : std::move(json.error());
  } else {
    return usage_error("there is no command 'cluster " + verb + "'");
  }
  return status.is_ok() ? 0 : report(status);
}

// JSON unless somebody chose; a person in front of `uccp dev` reads text.
log::Format log_format(const std::string& command, const Config& config) {
  const Config::Value& value = config.values().find("log_format")->second;
  const bool reader = command == "dev" && value.source == ConfigSource::kDefault && ::isatty(STDERR_FILENO) == 1;
  return reader || value.text == "text" ? log::Format::kText : log::Format::kJson;
}

int run_restore(CommandLine& line, bool verify_only) {
  runtime::PosixFileSystem files;
  const runtime::RealClock clock;
  runtime::SystemRandom random;
  RestoreOptions options;
  options.from = take_flag(line, "from", "");
  options.data_dir = take_flag(line, "data-dir", "");
  options.cluster_id = take_flag(line, "cluster-id", "");
  const auto node = node_id(take_flag(line, "node", "n1"));
  if (!node) return usage_error(node.error().message());
  options.node = *node;
  if (options.from.empty()) return usage_error("--from must name the folder of a backup");
  if (!verify_only && options.data_dir.empty())
    return usage_error("--data-dir must name the directory to restore into");
  options.from = absolute(options.from);
  if (!verify_only) options.data_dir = absolute(options.data_dir);
  auto config = load_config(line);
  if (!config) return usage_error(config.error().message());
  const auto done = verify_only ? verify_backup(files, *config, options.from, random)
                                : restore_directory(files, *config, options, clock, random);
  if (!done) return report(done.error());
  fmt::print("{}", *done);
  return 0;
}

int run_rotate(CommandLine& line) {
  runtime::PosixFileSystem files;
  const runtime::RealClock clock;
  runtime::SystemRandom random;
  const std::string data_dir = absolute(take_flag(line, "data-dir", "data"));
  const std::string new_key_file = take_flag(line, "new-key-file", "");
  auto config = load_config(line);
  if (!config) return usage_error(config.error().message());
  const auto done = rotate_keys(files, *config, data_dir, new_key_file, clock, random);
  if (!done) return report(done.error());
  fmt::print("{}", *done);
  return 0;
}

int run(int argc, char** argv) {
  auto line = parse(argc, argv);
  if (!line) return usage_error(line.error().message());
  const std::string command = line->words.empty() ? "" : line->words[0];
  if (command == "help" || (command.empty() && line->flags.empty())) {
    fmt::print("{}", kHelp);
    return 0;
  }
  if (command == "version") {
    fmt::print("uccp {}\n", UCCP_VERSION);
    return 0;
  }
  if (command == "cluster") return run_cluster(*line, line->words.size() > 1 ? line->words[1] : "");
  if (command == "keys" && line->words.size() == 2 && line->words[1] == "rotate") return run_rotate(*line);
  if (command == "restore") return run_restore(*line, false);
  if (command == "backup" && line->words.size() == 2 && line->words[1] == "verify") return run_restore(*line, true);
  if (command == "config" && line->words.size() == 2 && line->words[1] == "docs") {
    fmt::print("{}", settings_page());
    return 0;
  }
  DevOptions dev;
  dev.data_dir = take_flag(*line, "data-dir", "data");
  const std::string ports = take_flag(*line, "ports", "");
  if (!ports.empty() && ports != "auto") return usage_error("--ports takes only 'auto'");
  dev.auto_ports = ports == "auto";
  dev.start_agent = take_flag(*line, "no-agent", "") != "true";
  auto config = load_config(*line);
  if (!config) return usage_error(config.error().message());
  log::Options options;
  options.node_id = config->text("node_id");
  options.format = log_format(command, *config);
  if (!log::parse_level(config->text("log_level"), options.level)) {
    return usage_error("log_level '" + config->text("log_level") +
                       "' is none of TRACE, DEBUG, INFO, WARN, ERROR, FATAL");
  }
  log::configure(options);
  if (command == "config" && line->words.size() == 2 && line->words[1] == "explain") {
    fmt::print("{}", config->explain());
    return 0;
  }
  if (!config->boolean("core_dumps")) {
    if (Status status = runtime::forbid_core_dumps(); !status.is_ok()) return report(status);
  }
  if (command == "dev") return run_dev(dev, *config);
  if (command.empty()) return run_configured(*config);
  return usage_error("there is no command '" + command + "'");
}

}  // namespace
}  // namespace uccp::server

int main(int argc, char** argv) { return uccp::server::run(argc, argv); }
