// A cluster of real nodes in virtual time, on memory stores that a kill reverts to their last sync or flush, and a
// network that delays, drops and cuts. One group unless told otherwise, one domain with commands put, count.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "machine/table.h"
#include "node/node.h"
#include "sim/sim_clock.h"
#include "sim/sim_executor.h"
#include "storage/memory/memory_kv.h"
#include "storage/memory/memory_log_store.h"

namespace uccp::node {

inline constexpr machine::BytesTable kRows(100);

// put: "key=value". The response is the old value.
class Rows final : public machine::Domain {
 public:
  std::string_view name() const override { return "rows"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override {
    return {{"put", [](machine::ApplyContext& c, std::string_view p) -> machine::ApplyResult {
               const size_t equals = p.find('=');
               const std::string key(p.substr(0, equals));
               auto old = kRows.get(c.state(), c.scope(), key);
               kRows.put(c.state(), c.scope(), key, std::string(p.substr(equals + 1)));
               c.emit("rows", key, 1, std::string(p));
               return old.value_or("");
             }}};
  }
};

class TestNetwork {
 public:
  TestNetwork(sim::SimScheduler& scheduler, uint64_t seed) : scheduler_(scheduler), random_(seed) {}

  class End final : public Network {
   public:
    End(TestNetwork& net, NodeId id, Executor& executor) : net_(net), id_(id), executor_(executor) {
      net_.ends_[id] = this;
    }
    ~End() override {
      if (net_.ends_[id_] == this) net_.ends_.erase(id_);
    }
    void start(Receiver receiver, PeerDown down) override {
      receiver_ = std::move(receiver);
      down_ = std::move(down);
    }
    void send(NodeId to, NetworkLane lane, std::string frame) override {
      net_.deliver(id_, to, lane, std::move(frame));
    }
    void peer_down(NodeId peer) {
      executor_.post([this, peer] {
        if (down_) down_(peer);
      });
    }

   private:
    friend class TestNetwork;
    TestNetwork& net_;
    const NodeId id_;
    Executor& executor_;
    Receiver receiver_;
    PeerDown down_;
  };

  void cut(NodeId node) { cut_.insert(node); }
  void heal() { cut_.clear(); }
  void heal(NodeId node) { cut_.erase(node); }
  void set_loss(double probability) { loss_ = probability; }
  void reset(NodeId node) {
    for (auto& [id, end] : ends_) {
      if (id != node) end->peer_down(node);
    }
  }
  std::map<NetworkLane, uint64_t> frames, bytes;

 private:
  void deliver(NodeId from, NodeId to, NetworkLane lane, std::string frame) {
    ++frames[lane];
    bytes[lane] += frame.size();
    if (cut_.contains(from) || cut_.contains(to) || random_.chance(loss_)) return;
    // One lane to one peer keeps its order.
    int64_t& at_us = last_[{from, to, lane}];
    at_us = std::max(at_us, scheduler_.now_us() + 500 + static_cast<int64_t>(random_.below(1000)));
    scheduler_.schedule_at(at_us, [this, from, to, frame = std::move(frame)]() mutable {
      const auto found = ends_.find(to);
      if (found == ends_.end() || cut_.contains(to) || cut_.contains(from)) return;
      End* end = found->second;
      end->executor_.post([end, from, frame = std::move(frame)]() mutable {
        if (end->receiver_) end->receiver_(from, std::move(frame));
      });
    });
  }

  sim::SimScheduler& scheduler_;
  SeededRandom random_;
  std::map<NodeId, End*> ends_;
  std::map<std::tuple<NodeId, NodeId, NetworkLane>, int64_t> last_;
  std::set<NodeId> cut_;
  double loss_ = 0;
};

struct TestClusterOptions {
  uint64_t seed = 1;
  NodeOptions node;
  size_t groups = 1;
  std::function<LogIndex(const machine::GroupView&, LogIndex from)> log_floor;  // of all groups
  int64_t age_max_ms = 0;                                                       // of all groups
  std::set<uint64_t> without_leases;  // nodes that have no lease reads, whatever `node` says
};

class TestCluster {
 public:
  explicit TestCluster(TestClusterOptions options = {})
      : options_(std::move(options)), net(scheduler, options_.seed), random(options_.seed + 1) {}

  struct Member {
    Member(TestCluster& cluster, NodeId id)
        : clock(cluster.scheduler.time(), {1'000'000 + static_cast<int64_t>(id.value) * 777'777}),
          random(cluster.options_.seed * 1000 + id.value) {}
    sim::SimClock clock;
    SeededRandom random;
    storage::MemoryLogStore log;
    storage::MemoryKv kv;
    std::vector<NodeId> founders;
    uint64_t starts = 0;
    Status fatal;
    // Of one run.
    std::unique_ptr<MetricsRegistry> metrics;
    std::unique_ptr<sim::SimExecutor> loop, io, watch, reads;
    std::unique_ptr<TestNetwork::End> end;
    std::unique_ptr<Node> node;
    bool up() const { return node != nullptr; }
  };

  void add(uint64_t id, std::vector<NodeId> founders) {
    auto& member = members[NodeId(id)] = std::make_unique<Member>(*this, NodeId(id));
    member->founders = std::move(founders);
    start(id);
  }
  void add_founders(uint64_t count) {
    std::vector<NodeId> founders;
    for (uint64_t id = 1; id <= count; ++id) founders.push_back(NodeId(id));
    for (uint64_t id = 1; id <= count; ++id) add(id, founders);
  }

  void start(uint64_t id) {
    Member& m = *members[NodeId(id)];
    ++m.starts;
    m.fatal = Status::ok();
    m.metrics = std::make_unique<MetricsRegistry>();
    const auto executor = [&](int64_t delay_us) {
      return std::make_unique<sim::SimExecutor>(scheduler,
                                                sim::SimExecutor::Options{.clock = &m.clock, .delay_us = delay_us});
    };
    m.loop = executor(0);
    m.io = executor(300);
    m.watch = executor(10);
    m.reads = executor(100);
    m.end = std::make_unique<TestNetwork::End>(net, NodeId(id), *m.loop);
    NodeOptions node_options = options_.node;
    node_options.id = NodeId(id);
    if (options_.without_leases.contains(id)) node_options.group.raft.lease_reads = false;
    std::vector<GroupSpec> groups;
    for (size_t g = 1; g <= options_.groups; ++g) {
      groups.push_back({GroupId(g), "g" + std::to_string(g), {&rows_}, options_.log_floor, options_.age_max_ms});
    }
    m.node = std::make_unique<Node>(node_options,
                                    NodeEnvironment{.loop = *m.loop,
                                                    .io = *m.io,
                                                    .watch = *m.watch,
                                                    .clock = m.clock,
                                                    .random = m.random,
                                                    .log = m.log,
                                                    .kv = m.kv,
                                                    .metrics = *m.metrics,
                                                    .network = m.end.get(),
                                                    .reads = m.reads.get(),
                                                    .fatal =
                                                        [&m](Status s) {
                                                          if (m.fatal.is_ok()) m.fatal = std::move(s);
                                                        }},
                                    std::move(groups));
    const Status opened = m.node->open(m.founders);
    ASSERT_TRUE(opened.is_ok()) << opened.to_string();
    m.node->start();
  }

  // kill -9, with the loss of what was not synced.
  void kill(uint64_t id) {
    Member& m = *members[NodeId(id)];
    for (auto* executor : {m.loop.get(), m.io.get(), m.watch.get(), m.reads.get()}) executor->stop();
    m.end.reset();
    m.node.reset();
    m.log.crash();
    m.kv.crash();
    net.reset(NodeId(id));
  }
  void restart(uint64_t id) {
    kill(id);
    start(id);
  }

  Node& node(uint64_t id) { return *members[NodeId(id)]->node; }
  Member& member(uint64_t id) { return *members[NodeId(id)]; }
  GroupStatus status(uint64_t id, GroupId group = GroupId(1)) { return node(id).status().at(group).group; }

  void run_ms(int64_t ms) { scheduler.run_for_ms(ms); }
  bool run_until(const std::function<bool()>& condition, int64_t ms = 20'000) {
    return scheduler.run_until(condition, scheduler.now_us() + ms * 1000);
  }

  // The node that leads with a current state and that most recently won; 0: none.
  uint64_t leader(GroupId group = GroupId(1)) {
    uint64_t found = 0;
    Term term;
    for (auto& [id, m] : members) {
      if (!m->up()) continue;
      const auto status = m->node->status().at(group);
      if (status.leads && status.group.term > term) {
        found = id.value;
        term = status.group.term;
      }
    }
    return found;
  }
  uint64_t wait_leader(uint64_t except = 0) {
    EXPECT_TRUE(run_until([&] { return leader() != 0 && leader() != except; }));
    return leader();
  }

  static machine::Envelope envelope(std::string payload) {
    machine::Envelope e;
    e.scope = {"t", "n"};
    e.principal = "p";
    e.method = "m";
    e.command = "rows.put";
    e.payload = std::move(payload);
    return e;
  }
  // Proposes on `id` and waits for the result.
  Result<machine::Applied> put(uint64_t id, const std::string& payload, GroupId group = GroupId(1)) {
    auto result = std::make_shared<std::optional<Result<machine::Applied>>>();
    node(id).propose(group, envelope(payload), [result](Result<machine::Applied> r) { *result = std::move(r); });
    if (!run_until([&] { return result->has_value(); }, 30'000)) return fail(Code::kDeadline, "TEST", "no result");
    return std::move(**result);
  }
  bool set_feature_level(uint64_t id, uint32_t level) {
    auto raise = envelope(machine::encode_feature_level(level));
    raise.command = "machine.set_feature_level";
    auto done = std::make_shared<bool>(false);
    node(id).propose(GroupId(1), std::move(raise),
                     [done](const Result<machine::Applied>& r) { *done = r.has_value(); });
    return run_until([&] { return *done; });
  }
  // Many at once; the number of those that were applied.
  size_t put_many(uint64_t id, size_t count, const std::string& prefix, size_t value_bytes = 10) {
    auto applied = std::make_shared<size_t>(0);
    auto ended = std::make_shared<size_t>(0);
    for (size_t i = 0; i < count; ++i) {
      node(id).propose(GroupId(1), envelope(prefix + std::to_string(i) + "=" + std::string(value_bytes, 'x')),
                       [=](Result<machine::Applied> r) {
                         ++*ended;
                         if (r) ++*applied;
                       });
    }
    EXPECT_TRUE(run_until([&] { return *ended == count; }, 60'000));
    return *applied;
  }
  Result<machine::GroupView> read(uint64_t id, const machine::ReadLevel& level) {
    auto result = std::make_shared<std::optional<Result<machine::GroupView>>>();
    node(id).read(GroupId(1), level, [result](Result<machine::GroupView> r) { *result = std::move(r); });
    if (!run_until([&] { return result->has_value(); }, 30'000)) return fail(Code::kDeadline, "TEST", "no result");
    return std::move(**result);
  }
  std::string row(const Result<machine::GroupView>& view, const std::string& key) {
    if (!view) return view.error().to_string();
    return kRows.get(*view, {"t", "n"}, key).value_or("(none)");
  }
  // Calls an operation that ends with a Status.
  template <typename Call>
  Status wait(Call call, int64_t ms = 30'000) {
    auto result = std::make_shared<std::optional<Status>>();
    call([result](Status s) { *result = std::move(s); });
    if (!run_until([&] { return result->has_value(); }, ms)) return Status(Code::kDeadline, "TEST", "no result");
    return **result;
  }
  // All nodes that are up have applied what the leader committed, and have equal digests.
  bool converged(GroupId group = GroupId(1)) {
    const uint64_t lead = leader(group);
    if (lead == 0) return false;
    const GroupStatus reference = status(lead, group);
    for (auto& [id, m] : members) {
      if (!m->up() || !reference.membership.contains(id)) continue;
      const GroupStatus other = status(id.value, group);
      if (other.applied != reference.last || other.digest != reference.digest) return false;
    }
    return reference.applied == reference.last;
  }

 private:
  TestClusterOptions options_;
  Rows rows_;

 public:
  sim::SimScheduler scheduler;
  TestNetwork net;
  SeededRandom random;
  std::map<NodeId, std::unique_ptr<Member>> members;
};

}  // namespace uccp::node
