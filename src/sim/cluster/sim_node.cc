#include "sim/cluster/sim_node.h"

#include <algorithm>

#include "machine/machine.h"
#include "services/events/bus_rows.h"
#include "sim/cluster/observation.h"

namespace uccp::sim {
namespace {

constexpr uint64_t kReservedBytes = 64 << 10;
constexpr int64_t kTickMs = 50;
// As a server has it.
constexpr int64_t kCoreAgeMaxMs = 5'000;
constexpr std::string_view kCluster = "sim";

bool frees_space(std::string_view command) {
  static constexpr std::string_view kFreeing[] = {"machine.expire",
                                                  "discovery.deregister",
                                                  "tasks.cancel",
                                                  "tasks.prune",
                                                  "tasks.outcomes",
                                                  "tasks.stop_gangs",
                                                  "workers.fence",
                                                  "workers.deregister",
                                                  "workers.hello",
                                                  "kv.delete",
                                                  "kv.compact",
                                                  "kv.sweep",
                                                  "permits.release",
                                                  "permits.abandon",
                                                  "elections.resign",
                                                  "bus.trim",
                                                  "bus.drop",
                                                  "transactions.end",
                                                  "transactions.settle",
                                                  "transactions.settled"};
  return std::ranges::find(kFreeing, command) != std::end(kFreeing);
}

}  // namespace

SimNode::SimNode(SimScheduler& scheduler, SimNetwork& network, const SimOptions& options, NodeId id, uint64_t seed,
                 Checkers& checkers, NodeEvents events)
    : scheduler_(scheduler),
      network_(network),
      options_(options),
      id_(id),
      incarnation_(seed | 1),
      random_(seed),
      checkers_(checkers),
      events_(std::move(events)),
      clock_(scheduler.time(), {1'000'000 + static_cast<int64_t>(seed % 1'000'000'000)}),
      generation_(id.value << 32) {
  gather();
  UCCP_CHECK(files_.make_directories(log_directory()).is_ok(), "an empty disk takes a directory");
  const auto observe = [&](GroupId group, machine::Domain& domain) {
    observed_[group].push_back(std::make_unique<ObservedDomain>(
        domain, [this, group](machine::ApplyContext& context, std::string_view command, std::string_view payload,
                              const machine::ApplyResult& result) {
          Observation(scheduler_, checkers_).applied(id_, group, context, command, payload, result);
          if (events_.note) {
            events_.note("node " + std::to_string(id_.value) + " applied " + std::string(command) + " of " +
                         context.envelope().principal + " at " + std::to_string(context.index().value) + " in group " +
                         std::to_string(group.value) + (result ? "" : ": " + std::string(result.error().reason())));
          }
        }));
  };
  observe(kCoreGroup, registers_);
  observe(kCoreGroup, discovery_);
  observe(kCoreGroup, locks_);
  observe(kCoreGroup, elections_);
  observe(kCoreGroup, key_values_);
  observe(kWorkGroup, tasks_);
  observe(kWorkGroup, workers_);
  if (options_.event_clients == 0) return;
  observe(kCoreGroup, topics_);
  for (uint32_t number = 0; number < options_.bus_groups; ++number) {
    observe(events::bus_group(number), bus_);
    observe(events::bus_group(number), transactions_);
  }
}

class SimNode::Remote final : public machine::Proposer {
 public:
  explicit Remote(SimNode& owner, node::Node& node) : owner_(owner), node_(node) {}
  void propose(GroupId group, machine::Envelope envelope, Done done) override {
    if (node_.leads(group)) return node_.propose(group, std::move(envelope), std::move(done));
    owner_.events_.forward(owner_.id_, group, std::move(envelope), std::move(done));
  }

 private:
  SimNode& owner_;
  node::Node& node_;
};

SimNode::~SimNode() { crash(CrashKind::kKeepAll); }

std::vector<machine::Domain*> SimNode::domains(GroupId group) {
  std::vector<machine::Domain*> out;
  for (const auto& domain : observed_.at(group)) out.push_back(domain.get());
  return out;
}

void SimNode::make_executors(Process& p) {
  const auto make = [this](int64_t delay_us, int64_t jitter_us) {
    return std::make_unique<SimExecutor>(
        scheduler_,
        SimExecutor::Options{.clock = &clock_, .delay_us = delay_us, .jitter_us = jitter_us, .random = &random_});
  };
  p.loop = make(1, 20);
  p.io = make(options_.disk_us, options_.disk_jitter_us);
  p.watch = make(5, 200);
  p.reads = make(5, 200);
  p.door = make(1, 20);
}

node::NodeOptions SimNode::node_options() const {
  node::NodeOptions options;
  options.id = id_;
  options.tick_ms = kTickMs;
  options.group.raft.lease_reads = options_.lease_reads;
  options.group.raft.heartbeat_ticks = 2;
  options.group.raft.append_bytes_max = options_.append_bytes_max;
  options.group.compression = compression();
  options.group.snapshot.compression = compression();
  options.group.flush_every_entries = options_.flush_every_entries;
  options.group.log_kept_entries = options_.log_kept_entries;
  options.group.digest_every_entries = options_.digest_every_entries;
  options.group.snapshot.chunk_bytes = options_.snapshot_chunk_bytes;
  options.disk_reserved_bytes = kReservedBytes;
  options.frees_space = frees_space;
  return options;
}

Result<std::unique_ptr<storage::WalLogStore>> SimNode::open_wal(storage::RecoveryReport& report) {
  storage::WalLogStore::Options options;
  options.segment_bytes = options_.segment_bytes;
  options.cache_bytes_max = 256 << 10;
  options.moved_bytes_max = options_.segment_bytes / 4;
  options.compression = compression();
  const storage::StoreIdentity identity{std::string(kCluster), id_, incarnation_};
  return storage::WalLogStore::open(files_, log_directory(), identity, options, report);
}

void SimNode::build(Process& p) {
  p.node = std::make_unique<node::Node>(
      node_options(),
      node::NodeEnvironment{.loop = *p.loop,
                            .io = *p.io,
                            .watch = *p.watch,
                            .clock = clock_,
                            .random = random_,
                            .log = *p.log,
                            .kv = *kv_,
                            .metrics = p.metrics,
                            .network = p.network.get(),
                            .reads = p.reads.get(),
                            .free_bytes = [this] { return files_.free_bytes("/data"); },
                            .fatal = [this](const Status& status) { events_.fatal(id_, status); }},
      groups());
  tasks::WorkRuntimeOptions work_options;
  work_options.heartbeat_interval_ms = options_.heartbeat_ms;
  work_options.agent_lease_ms = options_.agent_lease_ms;
  work_options.lease_margin_ms = options_.lease_margin_ms;
  work_options.cluster_id = kCluster;
  p.work = std::make_unique<tasks::WorkRuntime>(
      work_options,
      tasks::WorkRuntimeEnvironment{.loop = *p.loop,
                                    .clock = clock_,
                                    .random = random_,
                                    .proposer = *p.node,
                                    .reader = *p.node,
                                    .watcher = *p.node,
                                    .metrics = p.metrics,
                                    .view = [node = p.node.get()] { return node->view(kWorkGroup); },
                                    .feature_level = [node = p.node.get()] { return node->feature_level(); }},
      p.live);
  p.remote = std::make_unique<Remote>(*this, *p.node);
  p.services = std::make_unique<SimServices>(
      SimServices::Environment{*p.node, *p.remote, *p.loop, *p.door, *p.watch, clock_, p.metrics}, random_.next(),
      options_.event_clients > 0 ? options_.bus_groups : 0);
  p.node->on_leadership(kCoreGroup, [this, services = p.services.get()](bool ready, Term term) {
    services->on_leadership(kCoreGroup, ready);
    if (ready) events_.leads(id_, kCoreGroup, term);
  });
  p.node->on_leadership(kWorkGroup, [this, work = p.work.get()](bool ready, Term term) {
    work->on_leadership(ready, term);
    if (ready) events_.leads(id_, kWorkGroup, term);
  });
  if (options_.event_clients == 0) return;
  for (uint32_t number = 0; number < options_.bus_groups; ++number) {
    const GroupId group = events::bus_group(number);
    p.node->on_leadership(group, [this, group, services = p.services.get()](bool ready, Term term) {
      services->on_leadership(group, ready);
      if (ready) events_.leads(id_, group, term);
    });
  }
}

// Few batches, so that some are below and some are not at most moments.
void SimNode::gather() { kv_.emplace(stored_, storage::GatheredKv::Options{.batches_max = 4}); }

std::vector<node::GroupSpec> SimNode::groups() {
  std::vector<node::GroupSpec> specs = {{kCoreGroup, "core", domains(kCoreGroup), {}, kCoreAgeMaxMs},
                                        {kWorkGroup, "work", domains(kWorkGroup)}};
  for (uint32_t number = 0; options_.event_clients > 0 && number < options_.bus_groups; ++number) {
    specs.push_back({events::bus_group(number), events::bus_group_name(number), domains(events::bus_group(number)),
                     [](const machine::GroupView& view, LogIndex from) { return events::log_floor(view, from); }});
  }
  return specs;
}

Status SimNode::start(const std::vector<NodeId>& founders) {
  ++generation_;
  stopping_ = false;
  checkers_.apply.restarted(id_);
  auto process = std::make_unique<Process>();
  make_executors(*process);
  storage::RecoveryReport report;
  UCCP_TRY(process->wal, open_wal(report));
  if (!report.torn_file.empty()) events_.tail_cut();
  process->log = std::make_unique<ObservedLog>(*process->wal,
                                               [this](GroupId group, Term previous, std::span<const Entry> entries) {
                                                 checkers_.logs.appended(id_, group, previous, entries);
                                               });
  process->network = std::make_unique<SimNetwork::End>(network_, id_, *process->loop);
  build(*process);
  if (Status opened = process->node->open(founders); !opened.is_ok()) {
    for (SimExecutor* executor : process->executors()) executor->stop();
    process->services.reset();
    return opened;
  }
  process->node->start();
  process->services->start();
  process_ = std::move(process);
  return Status::ok();
}

void SimNode::crash(CrashKind kind) {
  if (process_) {
    if (paused_since_us_ > 0) resume();
    stopping_ = false;
    for (SimExecutor* executor : process_->executors()) executor->stop();
    process_->network.reset();
    process_->services.reset();
    process_->work.reset();
    process_->node.reset();
    process_.reset();
  }
  // Views of the dead process are gone, so that the state may go back.
  kv_.reset();
  stored_.crash();
  gather();
  switch (kind) {
    case CrashKind::kLoseUnsynced: files_.crash_losing_unsynced(); break;
    case CrashKind::kTearUnsynced: files_.crash(random_); break;
    case CrashKind::kKeepAll: files_.crash_keeping_all(); break;
  }
}

void SimNode::stop(std::function<void(bool)> done) {
  if (std::exchange(stopping_, true)) return;
  process_->loop->post([this, done = std::move(done)]() mutable {
    process_->work->stop();
    process_->node->stop([this, done = std::move(done), generation = generation_] {
      scheduler_.schedule_after(0, [this, done, generation] {
        if (process_ && generation_ == generation) done(process_->wal->close().is_ok());
      });
    });
  });
}

void SimNode::pause() {
  if (!process_ || paused_since_us_ > 0) return;
  paused_since_us_ = scheduler_.now_us();
  for (SimExecutor* executor : process_->executors()) executor->pause();
}

void SimNode::resume() {
  if (paused_since_us_ == 0) return;
  paused_since_us_ = 0;
  if (!process_) return;
  for (SimExecutor* executor : process_->executors()) executor->resume();
}

void SimNode::set_disk_us(int64_t us) {
  if (process_) process_->io->set_delay_us(us);
}

std::optional<Term> SimNode::stored_term(GroupId group, LogIndex index) {
  const auto term = process_->wal->term(group, index);
  return term ? std::optional<Term>(*term) : std::nullopt;
}

void SimNode::check_digests() {
  for (const auto& [group, status] : process_->node->status()) {
    checkers_.digest.observed(id_, group, status.group.applied, status.group.digest);
  }
}

void SimNode::check_state() {
  for (const auto& [group, domains_of_group] : observed_) {
    machine::Machine stored(group, *kv_, domains(group));
    if (Status opened = stored.open(); !opened.is_ok()) {
      checkers_.violations.add("digest", opened.to_string());
      continue;
    }
    checkers_.digest.observed(id_, group, stored.applied(), stored.digest());
    if (Status verified = stored.verify_digest(); !verified.is_ok()) {
      checkers_.violations.add("digest", verified.to_string());
    }
  }
}

Result<std::map<GroupId, Digest>> SimNode::stored_digests() {
  std::map<GroupId, Digest> out;
  for (const GroupId group : groups_of(options_)) {
    machine::Machine stored(group, *kv_, domains(group));
    UCCP_RETURN_IF_ERROR(stored.open());
    out[group] = stored.digest();
  }
  return out;
}

Result<std::map<GroupId, storage::GroupLog>> SimNode::recover_log() {
  storage::RecoveryReport report;
  UCCP_TRY(const auto wal, open_wal(report));
  std::map<GroupId, storage::GroupLog> out;
  for (const GroupId group : groups_of(options_)) {
    UCCP_TRY(out[group], wal->load(group));
  }
  return out;
}

}  // namespace uccp::sim
