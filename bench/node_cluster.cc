#include "bench/node_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "base/bytes.h"
#include "bench/consensus.h"
#include "bench/load.h"
#include "machine/table.h"
#include "node/node.h"
#include "runtime/loop.h"
#include "runtime/peer_network.h"
#include "runtime/pki.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "storage/rocksdb/rocks_kv.h"
#include "storage/wal/wal_log_store.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kNodes = 3;
constexpr machine::TableId kTable = 100;
constexpr auto kLeadersMax = std::chrono::seconds(30);
const runtime::RealClock real_clock;

// put: the first eight bytes of the payload are the key.
class Rows final : public machine::Domain {
 public:
  std::string_view name() const override { return "rows"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override {
    return {{"put", [](machine::ApplyContext& c, std::string_view payload) -> machine::ApplyResult {
               c.state().put(machine::table_key::make(kTable, c.scope(), payload.substr(0, 8)), std::string(payload));
               return std::string();
             }}};
  }
};

void end(const Status& why) {
  fmt::print(stderr, "a node ended: {}\n", why.to_string());
  std::abort();
}

}  // namespace

struct NodeCluster::Member {
  Member(uint64_t number)
      : id(number), loop(real_clock, {.sockets = true}), io(real_clock), flush(real_clock), random(number) {}

  Status open(const std::string& directory, size_t groups, const runtime::PemIdentity& ca) {
    runtime::PeerNetworkOptions peers;
    peers.self = NodeId(id);
    peers.cluster_id = "bench";
    peers.listen_host = "127.0.0.1";
    peers.ca_pem = ca.certificate_pem;
    UCCP_TRY(peers.identity, runtime::issue_certificate(ca,
                                                        {.common_name = fmt::format("node-{}", id),
                                                         .uris = {runtime::node_uri("bench", NodeId(id))},
                                                         .use = runtime::CertificateUse::kServerAndClient},
                                                        real_clock.wall()));
    network = std::make_unique<runtime::PeerNetwork>(std::move(peers), loop, metrics, id);
    UCCP_TRY(port, network->listen());
    const std::string log_directory = fmt::format("{}/n{}/log", directory, id);
    UCCP_RETURN_IF_ERROR(files.make_directories(log_directory));
    storage::RecoveryReport report;
    const storage::StoreIdentity identity{"bench", NodeId(id), Incarnation(id)};
    UCCP_TRY(log, storage::WalLogStore::open(files, log_directory, identity, {}, report));
    UCCP_TRY(state, storage::RocksKv::open(fmt::format("{}/n{}/state", directory, id), {}));
    node::NodeOptions options;
    options.id = NodeId(id);
    std::vector<node::GroupSpec> specs;
    for (uint64_t g = 1; g <= groups; ++g) specs.push_back({GroupId(g), fmt::format("g{}", g), {&rows}});
    node = std::make_unique<node::Node>(options,
                                        node::NodeEnvironment{.loop = loop,
                                                              .io = io,
                                                              .watch = io,
                                                              .clock = real_clock,
                                                              .random = random,
                                                              .log = *log,
                                                              .kv = *state,
                                                              .metrics = metrics,
                                                              .network = network.get(),
                                                              .flush = &flush,
                                                              .fatal = end},
                                        std::move(specs));
    std::vector<NodeId> founders;
    for (uint64_t other = 1; other <= kNodes; ++other) founders.push_back(NodeId(other));
    return node->open(founders);
  }

  void start(const std::map<NodeId, runtime::PeerAddress>& peers) {
    network->set_peers(peers);
    io.start("bench-disk");
    flush.start("bench-flush");
    loop.start("bench-loop");
    node->start();
    running = true;
  }

  void stop() {
    if (!std::exchange(running, false)) return;
    std::promise<void> stopped;
    node->stop([&] { stopped.set_value(); });
    stopped.get_future().wait();
    network->stop();
    for (auto* executor : {&loop, &io, &flush}) executor->stop();
  }

  const uint64_t id;
  bool running = false;
  MetricsRegistry metrics;
  Rows rows;
  runtime::Loop loop, io, flush;
  runtime::PosixFileSystem files;
  SeededRandom random;
  std::unique_ptr<storage::WalLogStore> log;
  std::unique_ptr<storage::RocksKv> state;
  std::unique_ptr<runtime::PeerNetwork> network;
  uint16_t port = 0;
  std::unique_ptr<node::Node> node;
};

Result<std::unique_ptr<NodeCluster>> NodeCluster::start(const std::string& directory, size_t groups) {
  std::unique_ptr<NodeCluster> cluster(new NodeCluster());
  cluster->groups_ = groups;
  UCCP_TRY(const runtime::PemIdentity ca, runtime::create_ca("bench", 1, real_clock.wall()));
  std::map<NodeId, runtime::PeerAddress> peers;
  for (uint64_t id = 1; id <= kNodes; ++id) {
    cluster->members_.push_back(std::make_unique<Member>(id));
    UCCP_RETURN_IF_ERROR(cluster->members_.back()->open(directory, groups, ca));
    peers[NodeId(id)] = {"127.0.0.1", cluster->members_.back()->port};
  }
  for (auto& member : cluster->members_) member->start(peers);
  const auto ready = [](const auto& member) { return member->node->ready(); };
  for (const auto begin = Clock::now(); !std::ranges::all_of(cluster->members_, ready);) {
    if (Clock::now() - begin > kLeadersMax) {
      return fail(Code::kUnavailable, "BENCH_FAILED", "not every group has a leader");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return cluster;
}

NodeCluster::~NodeCluster() {
  for (auto& member : members_) member->stop();
}

// What is at work: each slot proposes again when its change is applied, until the end.
struct NodeCluster::Slots {
  NodeCluster& cluster;
  const size_t value_bytes;
  std::map<GroupId, Member*> leaders;
  std::atomic<bool> ended{false};
  std::atomic<size_t> at_work{0};
  std::atomic<uint64_t> next{0};
  std::mutex mutex;  // guards `load` and `ok`
  GroupLoad load;
  uint64_t ok = 0;

  void propose(size_t slot) {
    const GroupId group(slot % cluster.groups_ + 1);
    machine::Envelope envelope;
    envelope.scope = {"bench", "default"};
    envelope.principal = "bench";
    envelope.method = "bench";
    envelope.command = "rows.put";
    const uint64_t i = next++;
    envelope.payload = ByteWriter().u64(i).raw(value_of(i, value_bytes)).take();
    const auto begin = Clock::now();
    const auto done = [this, slot, begin](const Result<machine::Applied>& applied) {
      count(applied, Clock::now() - begin);
      if (ended) at_work.fetch_sub(1);
      else propose(slot);
    };
    leaders.at(group)->node->propose(group, std::move(envelope), done);
  }

  void count(const Result<machine::Applied>& applied, std::chrono::nanoseconds took) {
    std::lock_guard lock(mutex);
    if (applied) {
      ++ok;
      load.latency.record(took.count());
    } else if (load.failed++ == 0) {
      load.first_error = applied.error().to_string();
    }
  }
};

GroupLoad NodeCluster::puts(size_t in_flight, size_t value_bytes, double seconds) {
  Slots slots{.cluster = *this, .value_bytes = value_bytes};
  for (auto& member : members_) {
    for (const auto& [id, status] : member->node->status()) {
      if (status.leads) slots.leaders[id] = member.get();
    }
  }
  if (slots.leaders.size() != groups_) {
    slots.load.failed = 1;
    slots.load.first_error = "a group has no leader";
    return std::move(slots.load);
  }
  const auto begin = Clock::now();
  const double cpu = own_cpu_seconds();
  slots.at_work = in_flight;
  for (size_t slot = 0; slot < in_flight; ++slot) slots.propose(slot);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  slots.ended = true;
  while (slots.at_work.load() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double took = since(begin);
  slots.load.rate = static_cast<double>(slots.ok) / took;
  slots.load.cores = (own_cpu_seconds() - cpu) / took;
  slots.load.us_per_op = slots.load.cores * 1e6 / std::max(1.0, slots.load.rate);
  return std::move(slots.load);
}

}  // namespace uccp::bench
