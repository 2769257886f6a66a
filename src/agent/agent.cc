#include "agent/agent.h"

#include <algorithm>
#include <sstream>

#include "agent/wire.h"
#include "base/log.h"
#include "services/ray_names.h"

namespace uccp::agent {
namespace {

constexpr int64_t kProtocolVersion = 1;
constexpr int64_t kHeartbeatMsDefault = 1000;
constexpr int64_t kLeaseMsDefault = 15'000;
constexpr size_t kHeartbeatsRemembered = 1000;
// How long a shutdown waits for outcomes to be acknowledged.
constexpr int64_t kFarewellMs = 3000;
constexpr int64_t kAloneCheckMs = 500;
// Outcomes in Hello; the others follow after Welcome.
constexpr size_t kHelloBytesMax = 2u << 20;

}  // namespace

Result<std::unique_ptr<Agent>> Agent::open(Executor& loop, const Clock& clock, FileSystem& files, ServerLink& link,
                                           AgentOptions options, std::function<void()> ended) {
  const std::string data = options.data_directory;
  UCCP_RETURN_IF_ERROR(files.make_directories(data + "/logs"));
  UCCP_TRY(auto outcomes, OutcomeStore::open(files, data + "/outcomes"));
  UCCP_TRY(auto cache, InputCache::open(files, data + "/cache", options.cache_bytes_max));
  std::unique_ptr<Agent> agent(
      new Agent(loop, clock, files, link, std::move(options), std::move(ended), std::move(outcomes), std::move(cache)));
  UCCP_RETURN_IF_ERROR(agent->load_state());
  // Made here and not by the cluster, so that a Hello that is repeated because its answer was lost makes no second
  // worker.
  if (agent->worker_id_.empty()) agent->worker_id_ = "worker_" + agent->options_.incarnation.substr(0, 16);
  agent->starts_ += 1;
  UCCP_RETURN_IF_ERROR(agent->store_state());
  return agent;
}

Agent::Agent(Executor& loop, const Clock& clock, FileSystem& files, ServerLink& link, AgentOptions options,
             std::function<void()> ended, OutcomeStore outcomes, InputCache cache)
    : loop_(loop),
      clock_(clock),
      files_(files),
      link_(link),
      options_(std::move(options)),
      ended_(std::move(ended)),
      outcomes_(std::move(outcomes)),
      cache_(std::move(cache)),
      followers_(link,
                 [this](const AttemptKey& key) -> const AttemptLog* {
                   const bool yielded = key.ends_with(kYieldedSuffix);
                   const AttemptRecord* record =
                       find(yielded ? key.substr(0, key.size() - kYieldedSuffix.size()) : key);
                   if (record == nullptr) return nullptr;
                   return yielded ? record->yielded.get() : record->log.get();
                 }),
      devices_(options_.devices.gpus) {}

Agent::~Agent() {
  *alive_ = false;
  for (const Executor::TimerId timer : {heartbeat_timer_, lease_timer_, drain_timer_, alone_timer_})
    loop_.cancel(timer);
}

// <data>/worker: four lines, worker id, cluster id, epoch, number of starts. The last is missing in older ones.
Status Agent::load_state() {
  const std::string path = options_.data_directory + "/worker";
  UCCP_TRY(bool exists, files_.exists(path));
  if (!exists) return {};
  UCCP_TRY(std::string text, read_file(files_, path, 4096));
  std::istringstream lines(text);
  std::string epoch;
  if (std::getline(lines, worker_id_) && std::getline(lines, cluster_id_) && lines >> epoch_) {
    if (!(lines >> starts_)) starts_ = 0;
    return {};
  }
  return Status(Code::kCorruption, "WORKER_FILE_INVALID",
                path + " is damaged; remove it, and the agent registers as a new worker");
}

Status Agent::store_state() {
  return write_file_atomically(
      files_, options_.data_directory + "/worker",
      worker_id_ + "\n" + cluster_id_ + "\n" + std::to_string(epoch_) + "\n" + std::to_string(starts_) + "\n");
}

// Outcomes that were stored, and attempts that ran when the agent before this one died.
void Agent::load_outcomes() {
  for (StoredOutcome& stored : outcomes_.load()) {
    AttemptRecord record;
    record.id = stored.outcome.attempt();
    record.key = key_of(record.id);
    record.outcome = std::move(stored.outcome);
    record.uploads = std::move(stored.uploads);
    record.phase = record.uploads.empty() ? Phase::kReported : Phase::kUploading;
    record.stored = record.released = true;
    attempts_.insert_or_assign(record.key, std::move(record));
  }
  // Logs that nobody refers to: those of stored outcomes were moved to the outcomes.
  if (const auto logs = files_.list(options_.data_directory + "/logs")) {
    for (const std::string& name : *logs) (void)files_.remove(options_.data_directory + "/logs/" + name);
  }
  for (const std::string& identity : backend_->reconcile()) {
    wire::AttemptId id;
    if (!id.ParseFromString(identity) || !is_valid(id) || attempts_.contains(key_of(id))) continue;
    AttemptRecord record;
    record.id = id;
    record.key = key_of(id);
    record.phase = Phase::kReported;
    record.released = true;
    *record.outcome.mutable_attempt() = id;
    record.outcome.set_kind(api::ATTEMPT_OUTCOME_KIND_LOST);
    record.outcome.set_worker_fault(true);
    record.outcome.set_message("the worker's agent was restarted; the attempt was killed with it");
    *record.outcome.mutable_end_time() = timestamp_of(clock_.wall());
    store(record);
    attempts_.emplace(record.key, std::move(record));
  }
}

void Agent::start(ExecutorBackend& backend) {
  backend_ = &backend;
  load_outcomes();
  if (!attempts_.empty()) log::info("outcomes of an earlier agent will be reported", {{"outcomes", attempts_.size()}});
  down_since_ = clock_.boot();
  link_.start(*this);
  if (options_.exit_after_alone_ms > 0) check_alone();
}

void Agent::add_devices(wire::Hello& hello) const {
  const DeviceInventory& devices = options_.devices;
  api::Resources& capacity = *hello.mutable_capacity();
  if (devices_.count() > 0) capacity.mutable_gpu()->set_count(static_cast<double>(devices_.count()));
  *capacity.mutable_accelerators() = {devices.accelerators.begin(), devices.accelerators.end()};
  capacity.set_network_bps(devices.network_bps);
  capacity.mutable_extended()->insert(devices.extended.begin(), devices.extended.end());
  *hello.mutable_gpus() = {devices_.gpus().begin(), devices_.gpus().end()};
}

void Agent::devices_seen(const std::vector<api::WorkerGpu>& seen) {
  const size_t before = devices_.count();
  devices_.refresh(seen);
  devices_changed_ = true;
  if (devices_.count() == before) return;
  log::warn("the number of GPUs that work has changed", {{"before", before}, {"now", devices_.count()}});
  // The capacity is part of the Hello; what runs goes on over it.
  if (connected_) link_.reconnect(std::to_string(devices_.count()) + " GPUs work, no more " + std::to_string(before));
}

wire::Hello Agent::hello() {
  wire::Hello hello;
  hello.set_worker_id(worker_id_);
  hello.set_incarnation(options_.incarnation);
  hello.set_name(options_.name);
  hello.set_version(options_.version);
  hello.set_protocol_version(kProtocolVersion);
  const Capacity capacity = backend_->capacity();
  hello.mutable_capacity()->set_cpu(static_cast<double>(capacity.cpu_millis) / 1000);
  hello.mutable_capacity()->set_memory(capacity.memory_bytes);
  hello.mutable_capacity()->set_disk(capacity.disk_bytes);
  add_devices(hello);
  hello.mutable_labels()->insert(options_.labels.begin(), options_.labels.end());
  hello.add_capabilities("executor.process");
  if (options_.runs_functions) hello.add_capabilities("executor.function");
  if (options_.runs_containers) hello.add_capabilities("executor.container");
  if (options_.labels.contains(std::string(ray::kLabel))) hello.add_capabilities("executor.ray");
  hello.set_isolation(options_.isolation);
  hello.set_address(options_.address);
  const bool plain = devices_.gpus().empty() && options_.devices.accelerators.empty();
  hello.set_type(options_.type != api::WORKER_TYPE_UNSPECIFIED ? options_.type
                 : plain                                       ? api::WORKER_TYPE_DEDICATED
                                                               : api::WORKER_TYPE_ACCELERATOR);
  hello.set_pool(options_.pool);
  hello.set_region(options_.region);
  hello.set_zone(options_.zone);
  *hello.mutable_taints() = {options_.taints.begin(), options_.taints.end()};
  hello.set_last_epoch(epoch_);
  // Grows over restarts as well: the number of starts is on stable storage before the first connection.
  hello.set_session(starts_ << 32 | stream_);
  size_t bytes = 0;
  for (auto& [key, record] : attempts_) {
    if (record.phase == Phase::kReported && (bytes += record.outcome.ByteSizeLong()) < kHelloBytesMax) {
      record.stream = stream_;
      *hello.add_pending_outcomes() = record.outcome;
      continue;
    }
    // Also one that has ended but whose content is not stored yet, or for which there is no room: it is not lost.
    wire::RunningAttempt& running = *hello.add_running();
    *running.mutable_attempt() = record.id;
    if (record.start.us > 0) *running.mutable_start_time() = timestamp_of(record.start);
    running.set_stopping(record.stopping);
  }
  return hello;
}

void Agent::link_up() {
  connected_ = true;
  welcomed_ = false;
  stream_ += 1;
  hello_sent_ = clock_.boot();
  heartbeats_sent_.clear();
  heartbeat_sequence_ = 0;
  wire::AgentMessage message;
  *message.mutable_hello() = hello();
  link_.send(std::move(message));
}

void Agent::link_down(const Status& why) {
  if (welcomed_) {
    log::warn("the connection to the cluster is down", {{"error", why.message()}});
    down_since_ = clock_.boot();
  }
  connected_ = welcomed_ = false;
  loop_.cancel(heartbeat_timer_);
  followers_.clear();
  if (backend_ != nullptr) backend_->close_channel({}, 0);
  for (auto& [key, record] : attempts_) {
    if (record.phase == Phase::kUploading || record.phase == Phase::kReported) store(record);
  }
  check_ended();
}

void Agent::received(wire::ServerMessage message) {
  using Body = wire::ServerMessage::BodyCase;
  if (!welcomed_ && message.body_case() != Body::kWelcome && message.body_case() != Body::kEnd) {
    return link_.reconnect("the cluster's first message is not Welcome");
  }
  switch (message.body_case()) {
    case Body::kWelcome: return welcome(message.welcome());
    case Body::kHeartbeatAck: return heartbeat_ack(message.heartbeat_ack());
    case Body::kLaunch: return launch(std::move(*message.mutable_launch()));
    case Body::kCancel: return cancel(message.cancel());
    case Body::kOutcomeAck: return acknowledged(message.outcome_ack().attempt());
    case Body::kSubscribeLogs: return followers_.subscribe(message.subscribe_logs());
    case Body::kUnsubscribeLogs: return followers_.unsubscribe(message.unsubscribe_logs());
    case Body::kChannel: return deliver(message.channel());
    case Body::kDrain: return drain(message.drain());
    case Body::kShutdown:
      return shutdown(ms_of(message.shutdown().has_grace() ? &message.shutdown().grace() : nullptr, 0),
                      message.shutdown().reason());
    case Body::kEnd: return link_.reconnect("the cluster ended the stream: " + message.end().message());
    case Body::BODY_NOT_SET: return;  // of a newer cluster
  }
}

void Agent::welcome(const wire::Welcome& welcome) {
  if (!cluster_id_.empty() && welcome.cluster_id() != cluster_id_) {
    log::error("this is another cluster than the worker belongs to; remove the worker file to join it",
               {{"expected", cluster_id_}, {"found", welcome.cluster_id()}, {"data", options_.data_directory}});
    return link_.reconnect("the cluster is " + welcome.cluster_id() + ", this worker belongs to " + cluster_id_);
  }
  const bool changed =
      worker_id_ != welcome.worker_id() || cluster_id_ != welcome.cluster_id() || epoch_ != welcome.epoch();
  worker_id_ = welcome.worker_id();
  cluster_id_ = welcome.cluster_id();
  epoch_ = welcome.epoch();
  if (changed) {
    if (Status status = store_state(); !status.is_ok())
      log::error("the worker file cannot be written", {{"error", status.message()}});
  }
  welcomed_ = true;
  heartbeat_ms_ = std::max<int64_t>(
      ms_of(welcome.has_heartbeat_interval() ? &welcome.heartbeat_interval() : nullptr, kHeartbeatMsDefault), 10);
  lease_ms_ = ms_of(welcome.has_lease() ? &welcome.lease() : nullptr, kLeaseMsDefault);
  if (welcome.log_bytes_max() > 0) log_bytes_max_ = welcome.log_bytes_max();
  log::info("connected", {{"worker_id", worker_id_}, {"epoch", epoch_}, {"lease_ms", lease_ms_}});
  extend_lease(hello_sent_, lease_ms_);
  for (const wire::AttemptId& id : welcome.acknowledged()) acknowledged(id);
  for (const wire::AttemptId& id : welcome.kill()) {
    if (AttemptRecord* record = find(key_of(id))) {
      stop(*record, {.kind = EndKind::kLost, .reason = "the cluster no longer counts on this attempt"});
    }
  }
  std::vector<AttemptKey> old;
  for (const auto& [key, record] : attempts_) {
    if (record.id.worker_epoch() < epoch_) old.push_back(key);
  }
  for (const AttemptKey& key : old) {
    if (AttemptRecord* record = find(key)) {
      stop(*record,
           {.kind = EndKind::kLost,
            .reason = "the worker was fenced: epoch " + std::to_string(record->id.worker_epoch()) + " has passed"});
    }
  }
  send_what_hello_missed();
  send_heartbeat();
  upload_next();
}

void Agent::send_what_hello_missed() {
  for (const auto& [key, denied] : denials_) {
    wire::AgentMessage message;
    *message.mutable_denied() = denied;
    link_.send(std::move(message));
  }
  to_upload_.clear();
  for (auto& [key, record] : attempts_) {
    if (record.phase == Phase::kUploading) to_upload_.push_back(key);
    if (record.phase == Phase::kReported && record.stream != stream_) report(record);
  }
}

void Agent::send_heartbeat() {
  loop_.cancel(heartbeat_timer_);
  if (!welcomed_) return;
  heartbeat_timer_ = loop_.post_after(heartbeat_ms_, [this] { send_heartbeat(); });
  const WallTime now = clock_.wall();
  const MachineLoad load = load_.sample();
  wire::AgentMessage message;
  wire::AgentHeartbeat& beat = *message.mutable_heartbeat();
  beat.set_sequence(++heartbeat_sequence_);
  beat.mutable_load()->set_cpu(load.cpu);
  beat.mutable_load()->set_memory_used(load.memory_used);
  beat.mutable_load()->set_load_average(load.load_average);
  *beat.mutable_load()->mutable_measure_time() = timestamp_of(now);
  for (const auto& [key, record] : attempts_) {
    if (record.phase != Phase::kRunning || record.start.us == 0) continue;
    wire::AttemptUsage& usage = *beat.add_usage();
    *usage.mutable_attempt() = record.id;
    *usage.mutable_usage() = usage_of(backend_->usage(key), now);
  }
  if (std::exchange(devices_changed_, false)) *beat.mutable_gpus() = {devices_.gpus().begin(), devices_.gpus().end()};
  const BootTime sent = clock_.boot();
  if (!heartbeats_sent_.empty() && sent.ms_since(heartbeats_sent_.begin()->second) > lease_ms_ / 2) {
    // A connection that died without a word; another node may answer in time.
    return link_.reconnect("no heartbeat was confirmed for " + std::to_string(lease_ms_ / 2) + " ms");
  }
  heartbeats_sent_[heartbeat_sequence_] = sent;
  if (heartbeats_sent_.size() > kHeartbeatsRemembered) heartbeats_sent_.erase(heartbeats_sent_.begin());
  link_.send(std::move(message));
}

void Agent::heartbeat_ack(const wire::HeartbeatAck& ack) {
  const auto sent = heartbeats_sent_.find(ack.sequence());
  if (sent == heartbeats_sent_.end()) return;
  extend_lease(sent->second, ms_of(ack.has_lease_until() ? &ack.lease_until() : nullptr, lease_ms_));
  heartbeats_sent_.erase(heartbeats_sent_.begin(), std::next(sent));
}

void Agent::extend_lease(BootTime sent, int64_t lease_ms) {
  lease_end_ = std::max(lease_end_, sent.plus_ms(lease_ms));
  if (lease_timer_ == 0) check_lease();
}

// One timer, armed for the end as known; when it fires, the end has mostly moved on.
void Agent::check_lease() {
  lease_timer_ = 0;
  const int64_t left_ms = lease_end_.ms_since(clock_.boot());
  if (left_ms > 0) {
    lease_timer_ = loop_.post_after(left_ms, [this] { check_lease(); });
    return;
  }
  if (active() == 0) return;
  log::error("the lease ran out without a confirmed heartbeat: all attempts are killed", {{"attempts", active()}});
  stop_all({.kind = EndKind::kLost,
            .reason = "the worker had no confirmed heartbeat for its lease of " + std::to_string(lease_ms_) +
                      " ms and killed the attempt"});
}

void Agent::drain(const wire::DrainAgent& request) {
  loop_.cancel(drain_timer_);
  if (request.undo() && !draining_) return;
  draining_ = !request.undo() || shutting_down_;
  log::info(request.undo() ? "draining is over" : "draining", {{"reason", request.reason()}});
  if (request.undo() || !request.has_deadline()) return;
  drain_timer_ = loop_.post_after(ms_of(&request.deadline(), 0), [this, reason = request.reason()] {
    stop_all({.grace_ms = 10'000,
              .kind = EndKind::kPreempted,
              .reason = reason.empty() ? "the worker is drained" : "the worker is drained: " + reason});
  });
}

void Agent::shutdown(int64_t grace_ms, const std::string& reason) {
  if (std::exchange(shutting_down_, true)) return;
  draining_ = true;
  log::info("shutting down", {{"reason", reason}, {"attempts", active()}});
  const CancelOptions options{
      .grace_ms = grace_ms, .kind = EndKind::kPreempted, .reason = "the worker shuts down: " + reason};
  stop_all(options);
  backend_->drain(options, [this, alive = alive_] {
    if (!*alive) return;
    drained_ = true;
    check_ended();
    loop_.post_after(kFarewellMs, [this, alive] {
      if (*alive) end();
    });
  });
}

void Agent::check_ended() {
  if (!shutting_down_ || !drained_) return;
  // Without a connection everything is stored by now.
  if (welcomed_ && !attempts_.empty()) return;
  end();
}

void Agent::end() {
  if (std::exchange(ended_called_, true)) return;
  for (auto& [key, record] : attempts_) {
    if (record.phase == Phase::kUploading || record.phase == Phase::kReported) store(record);
  }
  ended_();
}

void Agent::check_alone() {
  const bool alone = !welcomed_ && active() == 0 && clock_.boot().ms_since(down_since_) >= options_.exit_after_alone_ms;
  if (alone) {
    log::info("no server was reachable and nothing runs: the agent ends",
              {{"alone_ms", clock_.boot().ms_since(down_since_)}});
    return end();
  }
  alone_timer_ = loop_.post_after(kAloneCheckMs, [this] { check_alone(); });
}

}  // namespace uccp::agent
