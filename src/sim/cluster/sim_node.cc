#include "sim/cluster/sim_node.h"

#include <algorithm>

#include "base/bytes.h"
#include "machine/machine.h"

namespace uccp::sim {
namespace {

constexpr uint64_t kReservedBytes = 64 << 10;
constexpr int64_t kTickMs = 50;

bool frees_space(std::string_view command) {
  static constexpr std::string_view kFreeing[] = {"machine.expire", "discovery.deregister", "tasks.cancel",
                                                  "tasks.prune",    "tasks.outcomes",       "workers.deregister",
                                                  "workers.fence",  "workers.hello"};
  return std::ranges::find(kFreeing, command) != std::end(kFreeing);
}

uint64_t hash_of(std::string_view command, std::string_view payload, const machine::ApplyResult& result) {
  ByteWriter bytes;
  bytes.bytes(command).bytes(payload);
  if (result) bytes.bytes(*result);
  else bytes.bytes(result.error().to_string());
  return hash64(bytes.data());
}

}  // namespace

SimNode::SimNode(SimScheduler& scheduler, const SimOptions& options, NodeId id, uint64_t seed, Checkers& checkers,
                 std::function<void(Status)> on_fatal)
    : scheduler_(scheduler),
      options_(options),
      id_(id),
      random_(seed),
      checkers_(checkers),
      on_fatal_(std::move(on_fatal)),
      clock_(scheduler.time()),
      observed_registers_(observed(registers_, kCoreGroup)),
      observed_discovery_(observed(discovery_, kCoreGroup)),
      observed_tasks_(observed(tasks_, kWorkGroup)),
      observed_workers_(observed(workers_, kWorkGroup)) {
  UCCP_CHECK(files_.make_directories(log_directory()).is_ok(), "an empty disk takes a directory");
}

SimNode::~SimNode() = default;

std::unique_ptr<ObservedDomain> SimNode::observed(machine::Domain& domain, GroupId group) {
  return std::make_unique<ObservedDomain>(
      domain, [this, group](machine::ApplyContext& context, std::string_view command, std::string_view payload,
                            const machine::ApplyResult& result) { observe(group, context, command, payload, result); });
}

std::vector<machine::Domain*> SimNode::domains(GroupId group) {
  if (group == kCoreGroup) return {observed_registers_.get(), observed_discovery_.get()};
  return {observed_tasks_.get(), observed_workers_.get()};
}

void SimNode::observe(GroupId group, machine::ApplyContext& context, std::string_view command, std::string_view payload,
                      const machine::ApplyResult& result) {
  const uint64_t hash = hash_of(command, payload, result);
  scheduler_.trace(hash);
  checkers_.apply.applied(id_, group, context.index(), command, hash);
  const machine::Envelope& e = context.envelope();
  if (e.dedup.session || !e.dedup.request_id.empty()) {
    std::string key = std::to_string(group.value) + "/" + e.scope.tenant + "/" + e.principal + "/";
    if (e.dedup.session) key += std::to_string(e.dedup.session.value) + "." + std::to_string(e.dedup.sequence);
    else key += e.method + "/" + e.dedup.request_id;
    checkers_.dedup.executed(key, context.index());
  }
  if (group == kWorkGroup) observe_work(context, command, payload, result);
}

void SimNode::observe_work(machine::ApplyContext& context, std::string_view command, std::string_view payload,
                           const machine::ApplyResult& result) {
  if (!result) return;
  if (command == "workers.hello" || command == "workers.fence") {
    internal::v1::WorkerRow row;
    if (row.ParseFromString(*result)) {
      checkers_.tasks.worker_epoch(context.index(), row.worker().id(), row.epoch());
    }
    return;
  }
  if (command == "tasks.cancel") {
    v1::Task task;
    if (task.ParseFromString(*result) && task.status() == v1::TASK_STATUS_CANCELLED) {
      checkers_.tasks.ended(context.index(), task.id());
    }
    return;
  }
  if (command != "tasks.outcomes") return;
  internal::v1::OutcomesCommand outcomes;
  internal::v1::OutcomesResult accepted;
  if (!outcomes.ParseFromArray(payload.data(), static_cast<int>(payload.size())) ||
      !accepted.ParseFromString(*result)) {
    return;
  }
  for (int i = 0; i < accepted.accepted_size(); ++i) {
    if (!accepted.accepted(i)) continue;
    const auto& outcome = outcomes.items(i).outcome();
    const auto& id = outcome.attempt();
    const auto row = work::kTasks.get(context.state(), {id.tenant(), id.namespace_()}, id.task_id());
    checkers_.tasks.counted({.index = context.index(),
                             .task = id.task_id(),
                             .number = id.attempt_number(),
                             .worker = id.worker_id(),
                             .epoch = id.worker_epoch(),
                             .lost = outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST,
                             .final = row && work::is_terminal(row->task().status())});
  }
}

void SimNode::build(Process& p) {
  node::NodeOptions options;
  options.id = id_;
  options.tick_ms = kTickMs;
  options.group.flush_every_entries = options_.flush_every_entries;
  options.group.log_kept_entries = options_.log_kept_entries;
  options.disk_reserved_bytes = kReservedBytes;
  options.frees_space = frees_space;
  p.node = std::make_unique<node::Node>(
      options,
      node::NodeEnvironment{.loop = *p.loop,
                            .io = *p.io,
                            .watch = *p.watch,
                            .clock = clock_,
                            .random = random_,
                            .log = *p.log,
                            .kv = kv_,
                            .metrics = p.metrics,
                            .free_bytes = [this] { return files_.free_bytes("/data"); },
                            .fatal = [this](Status status) { on_fatal_(std::move(status)); }},
      std::vector<node::GroupSpec>{{kCoreGroup, "core", domains(kCoreGroup)},
                                   {kWorkGroup, "work", domains(kWorkGroup)}});
  tasks::WorkRuntimeOptions work_options;
  work_options.heartbeat_interval_ms = options_.heartbeat_ms;
  work_options.agent_lease_ms = options_.agent_lease_ms;
  work_options.lease_margin_ms = options_.lease_margin_ms;
  work_options.cluster_id = "sim";
  p.work = std::make_unique<tasks::WorkRuntime>(
      work_options,
      tasks::WorkRuntimeEnvironment{.loop = *p.loop,
                                    .clock = clock_,
                                    .random = random_,
                                    .proposer = *p.node,
                                    .reader = *p.node,
                                    .watcher = *p.node,
                                    .metrics = p.metrics,
                                    .view = [node = p.node.get()] { return node->view(kWorkGroup); }},
      p.live);
  p.node->on_leadership(kWorkGroup, [work = p.work.get()](bool ready, Term term) { work->on_leadership(ready, term); });
}

Status SimNode::start(const std::vector<NodeId>& founders) {
  ++generation_;
  checkers_.apply.restarted(id_);
  auto process = std::make_unique<Process>();
  process->loop = std::make_unique<SimExecutor>(
      scheduler_, SimExecutor::Options{.clock = &clock_, .delay_us = 1, .jitter_us = 20, .random = &random_});
  process->io = std::make_unique<SimExecutor>(
      scheduler_,
      SimExecutor::Options{
          .clock = &clock_, .delay_us = options_.disk_us, .jitter_us = options_.disk_jitter_us, .random = &random_});
  process->watch = std::make_unique<SimExecutor>(
      scheduler_, SimExecutor::Options{.clock = &clock_, .delay_us = 5, .jitter_us = 200, .random = &random_});
  storage::WalLogStore::Options log_options;
  log_options.segment_bytes = options_.segment_bytes;
  log_options.cache_bytes_max = 256 << 10;
  log_options.moved_bytes_max = options_.segment_bytes / 4;
  storage::RecoveryReport report;
  const storage::StoreIdentity identity{"sim", id_, Incarnation(1)};
  UCCP_TRY(process->log, storage::WalLogStore::open(files_, log_directory(), identity, log_options, report));
  build(*process);
  UCCP_RETURN_IF_ERROR(process->node->open(founders));
  process->node->start();
  process_ = std::move(process);
  return Status::ok();
}

void SimNode::crash(CrashKind kind) {
  if (process_) {
    if (paused_since_us_ > 0) resume();
    for (SimExecutor* executor : {process_->loop.get(), process_->io.get(), process_->watch.get()}) executor->stop();
    process_->work.reset();
    process_->node.reset();
    process_.reset();
  }
  // Views of the dead process are gone, so that the state may go back.
  kv_.crash();
  switch (kind) {
    case CrashKind::kLoseUnsynced: files_.crash_losing_unsynced(); break;
    case CrashKind::kTearUnsynced: files_.crash(random_); break;
    case CrashKind::kKeepAll: files_.crash_keeping_all(); break;
  }
}

bool SimNode::stop(int64_t limit_ms) {
  bool stopped = false;
  process_->loop->post([this, &stopped] {
    process_->work->stop();
    process_->node->stop([&stopped] { stopped = true; });
  });
  scheduler_.run_until([&] { return stopped; }, scheduler_.now_us() + limit_ms * 1000);
  return stopped && process_->log->close().is_ok();
}

void SimNode::pause() {
  if (!process_ || paused_since_us_ > 0) return;
  paused_since_us_ = scheduler_.now_us();
  for (SimExecutor* executor : {process_->loop.get(), process_->io.get(), process_->watch.get()}) executor->pause();
}

void SimNode::resume() {
  if (paused_since_us_ == 0) return;
  checkers_.ttl.stalled(paused_since_us_, scheduler_.now_us());
  paused_since_us_ = 0;
  if (!process_) return;
  for (SimExecutor* executor : {process_->loop.get(), process_->io.get(), process_->watch.get()}) executor->resume();
}

void SimNode::set_disk_us(int64_t us) {
  if (process_) process_->io->set_delay_us(us);
}

void SimNode::check_state() {
  for (const auto& [group, status] : process_->node->status()) {
    checkers_.digest.observed(id_, group, status.group.applied, status.group.digest);
    machine::Machine stored(group, kv_, domains(group));
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
  for (const GroupId group : {kCoreGroup, kWorkGroup}) {
    machine::Machine stored(group, kv_, domains(group));
    UCCP_RETURN_IF_ERROR(stored.open());
    out[group] = stored.digest();
  }
  return out;
}

}  // namespace uccp::sim
