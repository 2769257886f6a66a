// The commands that make files for nodes which do not run yet, with all that is said of them.
#include <array>

#include "cli/catalog.h"

namespace uccp::cli {
namespace {

constexpr FileFlag kDirectory{"data-dir", "DIR", "folder of the cluster's files; default ./data"};
constexpr FileFlag kPorts{"ports", "auto", "free ports instead of the fixed ones: gRPC 50000, 50010, ...", "auto"};
constexpr FileFlag kHost{"host", "HOST",
                         "name or address under which nodes and clients reach the nodes; default 127.0.0.1"};

constexpr auto kInitFlags =
    std::to_array<FileFlag>({kDirectory,
                             {"nodes", "NUMBER", "how many nodes found the cluster; default 3"},
                             kPorts,
                             {"cluster-id", "ID", "name that tells this cluster from others; default a random one"},
                             kHost});
constexpr auto kPrepareFlags =
    std::to_array<FileFlag>({{.name = "node", .value_name = "ID", .what = "the new node, such as n4", .required = true},
                             kDirectory,
                             kPorts,
                             kHost});
constexpr auto kContextFlags = std::to_array<FileFlag>({kDirectory});

constexpr auto kFileCommands = std::to_array<FileCommand>({
    {"cluster", "init", kInitFlags, "Makes certificates and configurations of the founders of a cluster",
     "Writes DIR/pki, the authority, and for each node k DIR/nK with uccp.yaml and its certificates; what is there "
     "stays.\n"
     "Each node is then started with `uccp --config DIR/nK/uccp.yaml`, or all with scripts/start-cluster.sh."},
    {"cluster", "prepare", kPrepareFlags, "Makes certificates and configuration of one more node",
     "Writes DIR/ID. When the node is started it joins the cluster of DIR, as a voter if `cluster join` named no other "
     "goal."},
    {"cluster", "context", kContextFlags, "Writes DIR/cluster.json, the context file of the nodes that serve",
     "A context file holds addresses, certificates and a token: uccp-cli --context-file DIR/cluster.json."},
});

}  // namespace

std::span<const FileCommand> file_commands() { return kFileCommands; }

const FileCommand* find_file_command(std::string_view noun, std::string_view verb) {
  for (const FileCommand& command : kFileCommands) {
    if (command.noun == noun && command.verb == verb) return &command;
  }
  return nullptr;
}

std::string usage_of(const FileCommand& command) {
  std::string usage = std::string(command.noun) + " " + std::string(command.verb);
  for (const FileFlag& flag : command.flags) {
    const std::string words = "--" + std::string(flag.name) + " " + std::string(flag.value_name);
    usage += flag.required ? " " + words : " [" + words + "]";
  }
  return usage;
}

std::vector<Flag> flags_of(const FileCommand& command) {
  std::vector<Flag> flags;
  for (const FileFlag& flag : command.flags) {
    flags.push_back({.names = {std::string(flag.name)},
                     .value_name = std::string(flag.value_name),
                     .help = std::string(flag.what)});
    if (!flag.word.empty()) flags.back().choices = {std::string(flag.word)};
  }
  return flags;
}

}  // namespace uccp::cli
