#include "agent/log_follow.h"

#include <algorithm>

#include "agent/wire.h"
#include "base/log.h"

namespace uccp::agent {
namespace {
constexpr size_t kPieceBytes = tasks::kLogRecordBytesMax + tasks::kLogRecordHeaderBytes + tasks::kLogHeaderBytes;
}

void LogFollowers::subscribe(const wire::SubscribeLogs& request) {
  Follower follower;
  follower.attempt = request.attempt();
  follower.key = key_of(request.attempt());
  if (request.values()) follower.key += kYieldedSuffix;
  follower.subscription = request.subscription();
  follower.wanted[0] = request.stdout_offset();
  follower.wanted[1] = request.stderr_offset();
  follower.follow = request.follow();
  if (find_log_(follower.key) == nullptr || followers_.size() >= kFollowersMax) return reply(follower, false, true);
  const auto [at, fresh] = followers_.insert_or_assign({follower.key, follower.subscription}, follower);
  if (pump(at->second) && !request.follow()) {
    reply(at->second, false, false);
    followers_.erase(at);
  }
}

void LogFollowers::unsubscribe(const wire::UnsubscribeLogs& request) {
  const AttemptKey key = key_of(request.attempt());
  followers_.erase({key, request.subscription()});
  followers_.erase({key + std::string(kYieldedSuffix), request.subscription()});
}

void LogFollowers::appended(const AttemptKey& key) {
  for (auto at = followers_.lower_bound({key, 0}); at != followers_.end() && at->first.first == key; ++at)
    pump(at->second);
}

void LogFollowers::completed(const AttemptKey& key) {
  for (auto at = followers_.lower_bound({key, 0}); at != followers_.end() && at->first.first == key;) {
    pump(at->second);
    reply(at->second, true, false);
    at = followers_.erase(at);
  }
}

void LogFollowers::pump_all() {
  for (auto at = followers_.begin(); at != followers_.end() && link_.queued_bytes() < kLinkQueueBytes;) {
    const bool all = pump(at->second);
    if (all && !at->second.follow) {
      reply(at->second, false, false);
      at = followers_.erase(at);
    } else {
      ++at;
    }
  }
}

bool LogFollowers::pump(Follower& follower) {
  const AttemptLog* log = find_log_(follower.key);
  if (log == nullptr) return true;
  while (link_.queued_bytes() < kLinkQueueBytes) {
    const auto data = log->read(follower.position, kPieceBytes);
    if (!data) {
      log::warn("a log cannot be read for its followers", {{"error", data.error().message()}});
      return true;
    }
    tasks::LogReader reader(*data, follower.position);
    for (;;) {
      const auto record = reader.next();
      if (!record || !*record) break;
      send_record(follower, **record);
      follower.order += 1;
    }
    if (reader.position() == follower.position) return true;
    follower.position = reader.position();
  }
  return false;
}

void LogFollowers::send_record(Follower& follower, const tasks::LogRecord& record) {
  if (record.stream == tasks::LogStreamKind::kNotice) return;
  const int which = record.stream == tasks::LogStreamKind::kStdout ? 0 : 1;
  const uint64_t offset = follower.passed[which];
  follower.passed[which] += record.bytes.size();
  if (follower.passed[which] <= follower.wanted[which]) return;
  const uint64_t skip = std::max(offset, follower.wanted[which]) - offset;
  wire::AgentMessage message;
  wire::LogChunk& chunk = *message.mutable_log();
  *chunk.mutable_attempt() = follower.attempt;
  chunk.set_stream(which == 0 ? wire::LOG_STREAM_STDOUT : wire::LOG_STREAM_STDERR);
  *chunk.mutable_time() = timestamp_of({record.time_us});
  chunk.set_data(std::string(record.bytes.substr(skip)));
  chunk.set_offset(offset + skip);
  chunk.set_order(follower.order);
  link_.send(std::move(message));
}

void LogFollowers::reply(const Follower& follower, bool complete, bool unknown) {
  wire::AgentMessage message;
  wire::LogReply& reply = *message.mutable_log_reply();
  *reply.mutable_attempt() = follower.attempt;
  reply.set_subscription(follower.subscription);
  reply.set_stdout_offset(std::max(follower.passed[0], follower.wanted[0]));
  reply.set_stderr_offset(std::max(follower.passed[1], follower.wanted[1]));
  reply.set_complete(complete);
  reply.set_unknown(unknown);
  link_.send(std::move(message));
}

}  // namespace uccp::agent
