#include "bench/namespaces.h"

#include <fmt/format.h>
#include <unistd.h>

#include "runtime/subprocess.h"

namespace uccp::bench {
namespace {

constexpr int64_t kShellMs = 20'000;

// Of the range for benchmarks of networks (RFC 2544), which nobody uses; two runs at a time hardly meet.
std::string net() { return fmt::format("198.18.{}", ::getpid() % 250); }

// What a run that was killed left behind: names have the id of its process.
constexpr const char* kRemoveLeftovers =
    "for n in $(ip netns list | sed -n 's/^\\(ub[0-9]*\\)n.*/\\1/p' | sort -u); do\n"
    "  [ -d /proc/${n#ub} ] && continue\n"
    "  for i in 1 2 3; do ip netns del ${n}n$i || true; done\n"
    "  ip link del $n || true\n"
    "done\n";

}  // namespace

Namespaces::Namespaces(size_t count) : id_(std::to_string(::getpid())) {
  for (size_t i = 0; i < count; ++i) {
    places_.push_back({fmt::format("{}.{}", net(), i + 1), {"/usr/bin/env", "ip", "netns", "exec", name(i)}});
  }
}

std::string Namespaces::name(size_t node) const { return fmt::format("ub{}n{}", id_, node + 1); }

bool Namespaces::shell(const std::string& lines) {
  runtime::SpawnOptions options;
  options.argv = {"/bin/sh", "-ec", "exec 2>/dev/null\n" + lines};
  auto process = runtime::Subprocess::spawn(options);
  if (!process) return false;
  const auto ended = process->wait_for(kShellMs);
  return ended && *ended && (*ended)->to_string() == "exit code 0";
}

Result<std::unique_ptr<Namespaces>> Namespaces::make(size_t count) {
  std::unique_ptr<Namespaces> made(new Namespaces(count));
  const std::string bridge = "ub" + made->id_;
  std::string lines = kRemoveLeftovers;
  lines +=
      fmt::format("ip link add {0} type bridge\nip addr add {1}.254/24 dev {0}\nip link set {0} up\n", bridge, net());
  for (size_t i = 0; i < count; ++i) {
    lines += fmt::format(
        "ip netns add {0}\n"
        "ip link add {0} type veth peer name eth0 netns {0}\n"
        "ip link set {0} master {1} up\n"
        "ip -n {0} link set lo up\n"
        "ip -n {0} addr add {2}/24 dev eth0\n"
        "ip -n {0} link set eth0 up\n"
        "ip netns exec {0} nft 'add table ip faults; "
        "add chain ip faults in {{ type filter hook input priority 0; }}'\n",
        made->name(i), bridge, made->places_[i].host);
  }
  if (shell(lines)) return made;
  return fail(Code::kFailedPrecondition, "NAMESPACES_UNAVAILABLE",
              "network namespaces cannot be made here: they need root, and the programs ip (iproute2) and nft "
              "(nftables)");
}

Namespaces::~Namespaces() {
  // Each by itself: what was not made cannot be removed.
  for (size_t i = 0; i < places_.size(); ++i) shell("ip netns del " + name(i));
  shell("ip link del ub" + id_);
}

void Namespaces::isolate(size_t node) {
  std::string lines;
  for (size_t i = 0; i < places_.size(); ++i) {
    if (i == node) continue;
    lines += fmt::format("ip netns exec {} nft add rule ip faults in ip saddr {} drop\n", name(i), places_[node].host);
    lines += fmt::format("ip netns exec {} nft add rule ip faults in ip saddr {} drop\n", name(node), places_[i].host);
  }
  shell(lines);
}

void Namespaces::heal() {
  std::string lines;
  for (size_t i = 0; i < places_.size(); ++i) {
    lines += fmt::format("ip netns exec {} nft flush table ip faults\n", name(i));
  }
  shell(lines);
}

}  // namespace uccp::bench
