// The life of attempts in the agent: launch, inputs, end, upload, report.
#include <algorithm>

#include "agent/agent.h"
#include "agent/wire.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "services/function_names.h"

namespace uccp::agent {
namespace {

// Errors that may be gone when the upload is tried again: a full disk too, whose owner makes room or does not; until
// then the content is kept here.
bool is_transient(const Status& status) { return code_info(status.code()).retryable; }

}  // namespace

AttemptRecord* Agent::find(const AttemptKey& key) {
  const auto found = attempts_.find(key);
  return found == attempts_.end() ? nullptr : &found->second;
}

void Agent::launch(wire::LaunchAttempt launch) {
  const wire::AttemptId& id = launch.attempt();
  if (!is_valid(id)) return deny(id, wire::DENY_REASON_UNSUPPORTED, "the attempt's id is malformed");
  const AttemptKey key = key_of(id);
  if (AttemptRecord* known = find(key)) return resend(*known);
  if (denials_.contains(key) || forgotten_.contains(key)) return;
  if (id.worker_epoch() != epoch_) {
    return deny(
        id, wire::DENY_REASON_STALE_EPOCH,
        "placed in epoch " + std::to_string(id.worker_epoch()) + ", the worker is in " + std::to_string(epoch_));
  }
  if (draining_) return deny(id, wire::DENY_REASON_DRAINING, "the worker takes no new attempts");
  const api::Executor executor = launch.task().executor();
  const bool is_function =
      executor == api::EXECUTOR_FUNCTION && options_.runs_functions && launch.task().has_function();
  const bool is_process =
      (executor == api::EXECUTOR_UNSPECIFIED || executor == api::EXECUTOR_PROCESS) && !launch.task().command().empty();
  const bool is_container =
      executor == api::EXECUTOR_CONTAINER && options_.runs_containers && launch.task().has_container();
  const bool is_ray_job = executor == api::EXECUTOR_RAY && options_.runs_ray_jobs && !launch.task().command().empty();
  if (!is_function && !is_process && !is_container && !is_ray_job) {
    return deny(id, wire::DENY_REASON_UNSUPPORTED,
                std::string("this worker runs only commands as processes") +
                    (options_.runs_functions ? ", functions" : "") + (options_.runs_containers ? ", containers" : "") +
                    (options_.runs_ray_jobs ? ", jobs of Ray" : ""));
  }
  if (active_ >= options_.attempts_max) {
    return deny(id, wire::DENY_REASON_NO_CAPACITY,
                "the worker runs " + std::to_string(options_.attempts_max) + " attempts, its limit");
  }
  if (lease_end_ <= clock_.boot()) return deny(id, wire::DENY_REASON_NO_CAPACITY, "the worker's lease has run out");
  const auto devices = devices_.take(key, launch.task().resources().gpu(), id.tenant() + "/" + id.namespace_());
  if (!devices)
    return deny(id, wire::DENY_REASON_NO_CAPACITY, "the graphics processors that it asks for are not free here");
  devices_changed_ = devices_changed_ || !devices->empty();
  active_ += 1;
  AttemptRecord& record = attempts_[key];
  record.id = id;
  record.key = key;
  record.spec = spec_of(launch);
  // Those of the task's own do not count: it would take devices that are another's.
  for (const auto& [name, value] : devices_.environment(*devices)) record.spec.env.insert_or_assign(name, value);
  record.log = std::make_unique<AttemptLog>(options_.data_directory + "/logs/" + key, log_bytes_max_);
  if (is_function) {
    record.yielded = std::make_unique<AttemptLog>(options_.data_directory + "/logs/" + key + ".values", log_bytes_max_);
  }
  for (const wire::ResolvedInput& input : launch.inputs()) {
    const std::string& sha256 = input.blob().sha256();
    if (!objects::is_blob_id(sha256)) {
      return end_without_run(record, EndKind::kLaunchFailed, "input " + input.path() + " has no valid blob id", false);
    }
    record.spec.inputs.push_back(
        {.path = input.path(), .source_path = cache_.path_of(sha256), .mode = input.mode() == 0 ? 0644 : input.mode()});
    if (std::ranges::find(record.fetching, sha256) == record.fetching.end()) record.fetching.push_back(sha256);
  }
  fetch_next(key);
}

// One input after the other; attempts that wait for the same content share one fetch.
void Agent::fetch_next(const AttemptKey& key) {
  AttemptRecord* record = find(key);
  if (record == nullptr || record->phase != Phase::kFetching) return;
  while (!record->fetching.empty() && cache_.has(record->fetching.back())) {
    cache_.pin(record->fetching.back());
    record->pinned.push_back(record->fetching.back());
    record->fetching.pop_back();
  }
  if (record->fetching.empty()) return hand_over(*record);
  const std::string sha256 = record->fetching.back();
  auto& waiting = fetches_[sha256];
  waiting.push_back(key);
  if (waiting.size() > 1) return;
  auto writer = cache_.begin_put();
  if (!writer) {
    fetches_.erase(sha256);
    return end_without_run(*record, EndKind::kLaunchFailed, writer.error().message(), true);
  }
  link_.get_blob(sha256, record->id, std::move(*writer), [this, sha256, alive = alive_](Status status) {
    if (!*alive) return;
    const std::vector<AttemptKey> waiters = std::move(fetches_[sha256]);
    fetches_.erase(sha256);
    if (status.is_ok()) status = cache_.added(sha256);
    for (const AttemptKey& waiter : waiters) {
      AttemptRecord* one = find(waiter);
      if (one == nullptr || one->phase != Phase::kFetching) continue;
      if (status.is_ok()) {
        fetch_next(waiter);
      } else {
        end_without_run(*one, EndKind::kLaunchFailed, "input " + sha256 + " could not be fetched: " + status.message(),
                        is_transient(status));
      }
    }
  });
}

void Agent::hand_over(AttemptRecord& record) {
  record.phase = Phase::kRunning;
  std::vector<AttemptSpec> specs;
  specs.push_back(std::move(record.spec));
  backend_->launch(std::move(specs));
}

void Agent::unpin(AttemptRecord& record) {
  for (const std::string& sha256 : std::exchange(record.pinned, {})) cache_.unpin(sha256);
}

void Agent::send_started(const AttemptRecord& record) {
  wire::AgentMessage message;
  *message.mutable_started()->mutable_attempt() = record.id;
  *message.mutable_started()->mutable_start_time() = timestamp_of(record.start);
  link_.send(std::move(message));
}

void Agent::resend(const AttemptRecord& record) {
  if (record.phase == Phase::kReported) {
    wire::AgentMessage message;
    *message.mutable_outcome() = record.outcome;
    link_.send(std::move(message));
  } else if (record.start.us > 0) {
    send_started(record);
  }
}

void Agent::deny(const wire::AttemptId& id, wire::DenyReason reason, const std::string& why) {
  wire::AgentMessage message;
  *message.mutable_denied()->mutable_attempt() = id;
  message.mutable_denied()->set_reason(reason);
  message.mutable_denied()->set_message(why);
  if (denials_.size() >= kDenialsMax) denials_.erase(denials_.begin());
  denials_[key_of(id)] = message.denied();
  link_.send(std::move(message));
}

void Agent::cancel(const wire::CancelAttempt& request) {
  const AttemptKey key = key_of(request.attempt());
  AttemptRecord* record = find(key);
  if (record == nullptr) {
    if (!forgotten_.contains(key))
      deny(request.attempt(), wire::DENY_REASON_CANCELLED, "cancelled before it came here");
    return;
  }
  if (record->phase == Phase::kReported) return resend(*record);
  stop(*record, {.grace_ms = ms_of(request.has_grace() ? &request.grace() : nullptr, 0),
                 .kind = kind_from(request.kind()),
                 .reason = request.reason().empty() ? "cancelled" : request.reason()});
}

void Agent::stop(AttemptRecord& record, const CancelOptions& options) {
  record.stopping = true;
  if (record.phase == Phase::kFetching)
    return end_without_run(record, options.kind, options.reason, options.kind == EndKind::kLost);
  if (record.phase == Phase::kRunning) backend_->cancel(record.key, options);
}

void Agent::stop_all(const CancelOptions& options) {
  std::vector<AttemptKey> keys;
  for (const auto& [key, record] : attempts_) keys.push_back(key);
  for (const AttemptKey& key : keys) {
    if (AttemptRecord* record = find(key)) stop(*record, options);
  }
}

void Agent::end_without_run(AttemptRecord& record, EndKind kind, const std::string& message, bool worker_fault) {
  record.released = true;
  finished(record.key, {.kind = kind, .message = message, .worker_fault = worker_fault, .end = clock_.wall()});
}

void Agent::started(const AttemptKey& key, WallTime time) {
  AttemptRecord* record = find(key);
  if (record == nullptr) return;
  record->start = time;
  // The inputs are in its folder now.
  unpin(*record);
  if (welcomed_) send_started(*record);
}

void Agent::output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) {
  if (AttemptRecord* record = find(key)) {
    record->log->append(stream, time.us, bytes);
    followers_.appended(key);
  }
  // What the log did not take is dropped: the task must not wait for anybody.
  backend_->credit(key, bytes.size());
}

void Agent::yielded(const AttemptKey& key, WallTime time, AttemptValue value) {
  AttemptRecord* record = find(key);
  if (record == nullptr || record->yielded == nullptr || record->yielded->truncated()) return;
  const std::string payload = payload_of(value).SerializeAsString();
  record->yielded->append(tasks::LogStreamKind::kStdout, time.us,
                          ByteWriter().u32(static_cast<uint32_t>(payload.size())).raw(payload).take());
  followers_.appended(key + std::string(kYieldedSuffix));
  if (record->yielded->truncated()) {
    backend_->cancel(key, {.kind = EndKind::kSignalled,
                           .reason = "the values that it yields have more than " + std::to_string(log_bytes_max_) +
                                     " bytes, which are kept"});
  }
}

void Agent::deliver(const wire::ChannelData& data) {
  const AttemptKey key = key_of(data.attempt());
  if (!data.data().empty()) backend_->deliver(key, data.channel(), data.data());
  if (data.close()) backend_->close_channel(key, data.channel());
}

void Agent::answered(const AttemptKey& key, uint64_t channel, std::string data) {
  const AttemptRecord* record = find(key);
  if (record == nullptr || !welcomed_) return;
  wire::AgentMessage message;
  *message.mutable_channel()->mutable_attempt() = record->id;
  message.mutable_channel()->set_channel(channel);
  message.mutable_channel()->set_data(std::move(data));
  link_.send(std::move(message));
}

void Agent::finished(const AttemptKey& key, AttemptEnd end) {
  AttemptRecord* found = find(key);
  if (found == nullptr) return;
  AttemptRecord& record = *found;
  record.phase = Phase::kUploading;
  active_ -= 1;
  if (devices_.give_back(key)) devices_changed_ = true;
  unpin(record);
  wire::AttemptOutcome& outcome = record.outcome;
  *outcome.mutable_attempt() = record.id;
  outcome.set_kind(kind_of(end.kind));
  if (end.exit_code) outcome.set_exit_code(*end.exit_code);
  outcome.set_signal(end.signal);
  outcome.set_message(end.message);
  if (end.start.us > 0) *outcome.mutable_start_time() = timestamp_of(end.start);
  *outcome.mutable_end_time() = timestamp_of(end.end);
  *outcome.mutable_usage() = usage_of(end.usage, end.end);
  outcome.set_worker_fault(end.worker_fault || end.kind == EndKind::kLost);
  outcome.set_log_truncated(record.log->truncated());
  add_log(record);
  for (const CollectedArtifact& artifact : end.artifacts) {
    api::Artifact& kept = *outcome.add_artifacts();
    kept.set_path(artifact.path);
    kept.set_size(artifact.size);
    kept.set_sha256(artifact.sha256);
    kept.set_mode(artifact.mode);
    const bool known =
        std::ranges::any_of(record.uploads, [&](const BlobSource& one) { return one.sha256 == artifact.sha256; });
    if (!known) record.uploads.push_back({.sha256 = artifact.sha256, .size = artifact.size, .path = artifact.file});
  }
  if (end.value) *outcome.mutable_value() = payload_of(end);
  add_yielded(record);
  followers_.completed(key);
  followers_.completed(key + std::string(kYieldedSuffix));
  if (!welcomed_) store(record);
  if (record.uploads.empty()) return report(record);
  to_upload_.push_back(key);
  upload_next();
}

namespace {

// A log as content to store; nothing if it cannot be read back.
std::optional<BlobSource> source_of(const AttemptLog& log) {
  Sha256 hash;
  for (uint64_t position = 0; position < log.size();) {
    const auto piece = log.read(position, 1u << 20);
    if (!piece || piece->empty()) return std::nullopt;
    hash.update(*piece);
    position += piece->size();
  }
  BlobSource source{.sha256 = to_hex(hash.finish()), .size = log.size()};
  if (log.in_file()) {
    source.path = log.path();
  } else {
    source.data = log.memory();
  }
  return source;
}

}  // namespace

// The log becomes a blob like the artifacts.
void Agent::add_log(AttemptRecord& record) {
  const AttemptLog& log = *record.log;
  if (log.size() == 0) return;
  auto source = source_of(log);
  if (!source) {
    record.outcome.set_message(record.outcome.message() + "; its output could not be read back from the worker's disk");
    record.outcome.set_log_truncated(true);
    return;
  }
  wire::LogBlob& blob = *record.outcome.add_logs();
  blob.mutable_blob()->set_sha256(source->sha256);
  blob.mutable_blob()->set_size(source->size);
  blob.set_records(log.records());
  blob.set_stdout_bytes(log.stdout_bytes());
  blob.set_stderr_bytes(log.stderr_bytes());
  record.uploads.push_back(std::move(*source));
}

// What a generator yielded is an artifact.
void Agent::add_yielded(AttemptRecord& record) {
  if (record.yielded == nullptr || record.yielded->size() == 0) return;
  auto source = source_of(*record.yielded);
  if (!source) {
    record.outcome.set_message(record.outcome.message() +
                               "; what it yielded could not be read back from the worker's disk");
    return;
  }
  api::Artifact& kept = *record.outcome.add_artifacts();
  kept.set_path(std::string(functions::kYieldedArtifact));
  kept.set_size(source->size);
  kept.set_sha256(source->sha256);
  kept.set_mode(0600);
  record.uploads.push_back(std::move(*source));
}

void Agent::upload_next() {
  while (welcomed_ && uploads_running_ < kUploadsMax && !to_upload_.empty()) {
    const AttemptKey key = std::move(to_upload_.front());
    to_upload_.pop_front();
    AttemptRecord* record = find(key);
    if (record == nullptr || record->phase != Phase::kUploading || record->upload_running) continue;
    if (record->uploads.empty()) {
      report(*record);
      continue;
    }
    record->upload_running = true;
    uploads_running_ += 1;
    link_.put_blob(record->uploads.front(), record->id, [this, key, alive = alive_](Status status) {
      if (*alive) uploaded(key, status);
    });
  }
}

void Agent::uploaded(const AttemptKey& key, const Status& status) {
  uploads_running_ -= 1;
  AttemptRecord* record = find(key);
  if (record == nullptr) return upload_next();
  record->upload_running = false;
  if (!status.is_ok() && is_transient(status)) {
    // Tried again after a moment, or with the next connection.
    loop_.post_after(heartbeat_ms_, [this, key, alive = alive_] {
      if (!*alive) return;
      to_upload_.push_back(key);
      upload_next();
    });
    return;
  }
  BlobSource source = std::move(record->uploads.front());
  record->uploads.erase(record->uploads.begin());
  if (!status.is_ok()) {
    wire::AttemptOutcome& outcome = record->outcome;
    log::error("content of an attempt is not stored by the cluster", {{"attempt", key}, {"error", status.message()}});
    outcome.set_message(outcome.message() + "; not stored: " + status.message());
    for (int i = outcome.artifacts_size() - 1; i >= 0; --i) {
      if (outcome.artifacts(i).sha256() == source.sha256) outcome.mutable_artifacts()->DeleteSubrange(i, 1);
    }
    if (outcome.logs_size() > 0 && outcome.logs(0).blob().sha256() == source.sha256) {
      outcome.clear_logs();
      outcome.set_log_truncated(true);
    }
  }
  record->uploaded.push_back({.path = std::move(source.path)});
  to_upload_.push_front(key);
  upload_next();
}

void Agent::report(AttemptRecord& record) {
  record.phase = Phase::kReported;
  if (!welcomed_) return;  // goes out with the next Hello, or after the Welcome that is awaited
  record.stream = stream_;
  wire::AgentMessage message;
  *message.mutable_outcome() = record.outcome;
  link_.send(std::move(message));
}

void Agent::store(AttemptRecord& record) {
  if (record.stored) return;
  StoredOutcome stored{record.outcome, record.uploads};
  for (AttemptLog* log : {record.log.get(), record.yielded.get()}) {
    if (log != nullptr && log->in_file()) (void)log->persist();
  }
  if (Status status = outcomes_.put(record.key, stored); !status.is_ok()) {
    log::error("an outcome cannot be stored; if the agent dies now it is lost",
               {{"attempt", record.key}, {"error", status.message()}});
    return;
  }
  record.uploads = std::move(stored.uploads);
  record.stored = true;
  if (!std::exchange(record.released, true)) backend_->release(record.key);
}

void Agent::acknowledged(const wire::AttemptId& id) {
  const AttemptKey key = key_of(id);
  denials_.erase(key);
  AttemptRecord* record = find(key);
  if (record == nullptr || record->phase != Phase::kReported) return;
  if (!record->released) backend_->release(key);
  if (record->stored) {
    if (Status status = outcomes_.remove(key, record->uploaded); !status.is_ok()) {
      log::warn("a stored outcome stays behind", {{"error", status.message()}});
    }
  }
  if (record->log != nullptr) record->log->remove();
  if (record->yielded != nullptr) record->yielded->remove();
  attempts_.erase(key);
  forgotten_order_[++forgotten_number_] = key;
  forgotten_[key] = forgotten_number_;
  if (forgotten_order_.size() > kForgottenMax) {
    forgotten_.erase(forgotten_order_.begin()->second);
    forgotten_order_.erase(forgotten_order_.begin());
  }
  check_ended();
}

}  // namespace uccp::agent
