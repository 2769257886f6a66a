#include "services/tasks/task_logs.h"

#include <array>
#include <charconv>
#include <deque>

#include "base/bytes.h"
#include "services/tasks/log_format.h"

namespace uccp::tasks {
namespace {

constexpr size_t kQueuedBytesMax = 1u << 20;
constexpr size_t kLiveQueuedBytesMax = 16u << 20;
constexpr size_t kLineBytesMax = 64u << 10;
constexpr size_t kReadBytes = 1u << 20;

std::string_view stream_name(LogStreamKind kind) {
  switch (kind) {
    case LogStreamKind::kStdout: return "stdout";
    case LogStreamKind::kStderr: return "stderr";
    case LogStreamKind::kNotice: return "notice";
  }
  return "notice";
}

// Follows the log of one task for one call. Lives on the `io` executor, which is one thread.
class Follower : public std::enable_shared_from_this<Follower> {
 public:
  Follower(const LogEnvironment& environment, call::CallPtr call, const v1::GetTaskLogsRequest& request)
      : env_(environment),
        call_(std::move(call)),
        request_(request),
        ref_{call_->principal.tenant, call_->name_space, request.id()} {
    if (request.tail_lines() > 0 && request.since().empty()) tail_max_ = static_cast<size_t>(request.tail_lines());
  }

  void start(const LogCursor& since, LogIndex watch_since) {
    cursor_ = since;
    if (cursor_.attempt == 0) cursor_.attempt = std::max(1, request_.attempt());
    auto weak = weak_from_this();
    const auto wake = [weak, &io = env_.io] {
      io.post([weak] {
        if (auto self = weak.lock()) self->step();
      });
    };
    call_->on_drain(wake);
    call_->on_cancel([weak, &io = env_.io] {
      io.post([weak] {
        if (auto self = weak.lock()) self->stop();
      });
    });
    watch_ = env_.watcher.watch(
        {kWorkGroup, std::string(work::kTaskTopic), ref_.tenant, ref_.name_space}, watch_since,
        [id = ref_.id, wake](const machine::Change& change) {
          if (change.key == id) wake();
          return true;
        },
        [weak, &io = env_.io](const Status& status) {
          io.post([weak, message = std::string(status.message())] {
            auto self = weak.lock();
            if (self && !self->call_->finished()) self->end(v1::STREAM_END_REASON_RECONNECT, message);
          });
        });
    step();
  }

 private:
  using Row = internal::v1::TaskRow;

  // Goes on with whatever comes next; called again when something changed.
  void step() {
    while (!call_->finished() && !stored_blocked() && subscription_ == 0 && !subscribing_) {
      const auto row = work::kTasks.get(env_.view(), {ref_.tenant, ref_.name_space}, ref_.id);
      if (!row) return end(v1::STREAM_END_REASON_DELETED, "the task was removed");
      const bool done = work::is_terminal(row->task().status());
      if (cursor_.attempt <= row->task().attempts()) {
        if (!send_stored(*row)) return;
        if (request_.attempt() > 0) return end(v1::STREAM_END_REASON_COMPLETED, "the attempt has ended");
        next_attempt();
        continue;
      }
      flush_tail_if_current();
      if (done) return end(v1::STREAM_END_REASON_COMPLETED, "the task has ended");
      if (caught_up_ && !request_.follow()) return end(v1::STREAM_END_REASON_CAUGHT_UP, "up to now");
      return subscribe();
    }
  }

  // True while the client has to take what is queued first; its drain wakes us.
  bool stored_blocked() const { return call_->sink->queued_bytes() > kQueuedBytesMax; }

  void next_attempt() {
    cursor_ = {.attempt = cursor_.attempt + 1};
    partial_ = {};
    blob_ = 0;
    blob_offset_ = 0;
    seen_ = {};
    caught_up_ = false;
  }

  // Sends what is stored of the present attempt. False: ended, or to be continued when the client has drained.
  bool send_stored(const Row& row) {
    const internal::v1::AttemptLog* log = nullptr;
    for (const auto& candidate : row.logs()) {
      if (candidate.attempt() == cursor_.attempt) log = &candidate;
    }
    if (log == nullptr) return true;  // lost with its worker, or older than what is kept
    for (; blob_ < log->blobs_size(); ++blob_, blob_offset_ = 0) {
      const v1::Blob& blob = log->blobs(blob_).blob();
      while (blob_offset_ < blob.size()) {
        if (stored_blocked() && tail_max_ == 0) return false;
        if (!send_stored_piece(blob)) return false;
      }
    }
    flush_partial();
    return true;
  }

  bool send_stored_piece(const v1::Blob& blob) {
    auto data = env_.blobs.read(blob.sha256(), blob_offset_, kReadBytes);
    if (!data) return fail(data.error());
    LogReader reader(*data, blob_offset_);
    const uint64_t before = blob_offset_;
    for (;;) {
      auto record = reader.next();
      if (!record) return fail(record.error());
      if (!*record) break;
      take_stored(**record);
    }
    blob_offset_ = reader.position();
    if (blob_offset_ == before) blob_offset_ = blob.size();  // an unfinished record at the very end
    return true;
  }

  void take_stored(const LogRecord& record) {
    if (record.stream == LogStreamKind::kNotice) return send_line(record.stream, record.bytes, record.time_us, false);
    const size_t s = record.stream == LogStreamKind::kStdout ? 0 : 1;
    const uint64_t offset = seen_[s];
    seen_[s] += record.bytes.size();
    take(record.stream, offset, record.bytes, record.time_us);
  }

  // Bytes of one output from `offset` on; what was sent before is skipped.
  void take(LogStreamKind stream, uint64_t offset, std::string_view bytes, int64_t time_us) {
    const size_t s = stream == LogStreamKind::kStdout ? 0 : 1;
    Partial& partial = partial_[s];
    const uint64_t next = sent_offset(s) + partial.bytes.size();
    if (offset > next || offset + bytes.size() <= next) return;
    bytes.remove_prefix(next - offset);
    while (!bytes.empty()) {
      // A part is at most as long as the contract says, however much came at once.
      const std::string_view part = bytes.substr(0, kLineBytesMax - partial.bytes.size());
      const size_t newline = part.find('\n');
      const size_t take = newline == std::string_view::npos ? part.size() : newline + 1;
      if (partial.bytes.empty()) partial.time_us = time_us;
      partial.bytes.append(bytes.substr(0, take));
      bytes.remove_prefix(take);
      if (newline != std::string_view::npos) emit(stream, partial, false);
      else if (partial.bytes.size() >= kLineBytesMax) emit(stream, partial, true);
    }
  }

  struct Partial {
    std::string bytes;
    int64_t time_us = 0;
  };

  uint64_t& sent_offset(size_t s) { return s == 0 ? cursor_.stdout_offset : cursor_.stderr_offset; }

  void emit(LogStreamKind stream, Partial& partial, bool cut) {
    const std::string bytes = std::exchange(partial.bytes, {});
    sent_offset(stream == LogStreamKind::kStdout ? 0 : 1) += bytes.size();
    std::string_view text = bytes;
    if (text.ends_with('\n')) text.remove_suffix(1);
    send_line(stream, text, partial.time_us, cut);
  }

  void flush_partial() {
    for (const LogStreamKind stream : {LogStreamKind::kStdout, LogStreamKind::kStderr}) {
      Partial& partial = partial_[stream == LogStreamKind::kStdout ? 0 : 1];
      if (!partial.bytes.empty()) emit(stream, partial, false);
    }
  }

  void send_line(LogStreamKind stream, std::string_view text, int64_t time_us, bool cut) {
    if (!request_.stream().empty() && request_.stream() != stream_name(stream)) return;
    v1::LogLine line;
    line.mutable_time()->set_seconds(time_us / 1'000'000);
    line.mutable_time()->set_nanos(static_cast<int32_t>(time_us % 1'000'000 * 1000));
    line.set_stream(std::string(stream_name(stream)));
    if (is_utf8(text)) line.set_text(std::string(text));
    else line.set_base64(std::string(text));
    line.set_cursor(encode_cursor(cursor_));
    line.set_attempt(cursor_.attempt);
    line.set_partial(cut);
    if (tail_max_ == 0) return call_->send(line.SerializeAsString());
    tail_.push_back(line.SerializeAsString());
    if (tail_.size() > tail_max_) tail_.pop_front();
  }

  // The last lines are known once everything up to now was seen.
  void flush_tail_if_current() {
    if (tail_max_ == 0) return;
    if (!caught_up_ && has_live_attempt()) return;
    tail_max_ = 0;
    for (std::string& line : tail_) call_->send(std::move(line));
    tail_.clear();
  }

  bool has_live_attempt() {
    const auto row = work::kTasks.get(env_.view(), {ref_.tenant, ref_.name_space}, ref_.id);
    return row && !work::is_terminal(row->task().status());
  }

  // Asks the agent of the running attempt for its output behind the cursor.
  void subscribe() {
    subscribing_ = true;
    const bool follow = request_.follow() && (tail_max_ == 0 || caught_up_);
    auto self = shared_from_this();
    env_.loop.post([self, follow, cursor = cursor_] {
      WorkRuntime::LogSink sink{.chunk =
                                    [self](const internal::v1::LogChunk& chunk) {
                                      self->env_.io.post([self, chunk] { self->live_chunk(chunk); });
                                    },
                                .reply =
                                    [self](const internal::v1::LogReply& reply) {
                                      self->env_.io.post([self, reply] { self->live_reply(reply); });
                                    }};
      const uint64_t id = self->env_.runtime.subscribe_logs(
          self->ref_, cursor.attempt,
          {.stdout_offset = cursor.stdout_offset, .stderr_offset = cursor.stderr_offset, .follow = follow},
          std::move(sink));
      self->env_.io.post([self, id] { self->subscribed(id); });
    });
  }

  void subscribed(uint64_t id) {
    subscribing_ = false;
    subscription_ = id;
    if (call_->finished()) return stop();
    if (id != 0) return;
    // Nothing runs just now: there is nothing live to see. A change of the task wakes us.
    caught_up_ = true;
    flush_tail_if_current();
    if (!request_.follow()) return step();
    const auto row = work::kTasks.get(env_.view(), {ref_.tenant, ref_.name_space}, ref_.id);
    if (row && (work::is_terminal(row->task().status()) || row->task().attempts() >= cursor_.attempt)) return step();
    retry_later();
  }

  // An attempt starts without a change of the replicated task, so a waiting follower looks again now and then.
  void retry_later() {
    if (retry_scheduled_) return;
    retry_scheduled_ = true;
    auto weak = weak_from_this();
    env_.io.post_after(100, [weak] {
      auto self = weak.lock();
      if (!self) return;
      self->retry_scheduled_ = false;
      self->step();
    });
  }

  void live_chunk(const internal::v1::LogChunk& chunk) {
    if (call_->finished() || subscription_ == 0 || chunk.attempt().attempt_number() != cursor_.attempt) return;
    if (call_->sink->queued_bytes() > kLiveQueuedBytesMax) {
      return end(v1::STREAM_END_REASON_TOO_SLOW, "the client takes output too slowly; resume with the last cursor");
    }
    const int64_t time_us = chunk.time().seconds() * 1'000'000 + chunk.time().nanos() / 1000;
    take(chunk.stream() == internal::v1::LOG_STREAM_STDERR ? LogStreamKind::kStderr : LogStreamKind::kStdout,
         chunk.offset(), chunk.data(), time_us);
  }

  // The agent sent all there is, or the attempt is over: what remains comes from its stored log.
  void live_reply(const internal::v1::LogReply& reply) {
    if (subscription_ == 0) return;
    const uint64_t id = std::exchange(subscription_, 0);
    env_.loop.post([&runtime = env_.runtime, id] { runtime.unsubscribe_logs(id); });
    caught_up_ = true;
    if (!reply.complete() && !reply.unknown()) {
      if (!request_.follow()) flush_partial();
      return step();
    }
    partial_ = {};
    if (request_.follow() || tail_max_ > 0) retry_later();
    else step();
  }

  bool fail(Status status) {
    stop();
    call_->finish(std::move(status));
    return false;
  }

  void end(v1::StreamEndReason reason, const std::string& message) {
    for (std::string& line : tail_) call_->send(std::move(line));
    tail_.clear();
    v1::LogLine line;
    line.set_cursor(encode_cursor(cursor_));
    line.mutable_end()->set_reason(reason);
    line.mutable_end()->set_message(message);
    call_->send(line.SerializeAsString());
    stop();
    call_->finish(Status::ok());
  }

  void stop() {
    watch_.reset();
    if (const uint64_t id = std::exchange(subscription_, 0)) {
      env_.loop.post([&runtime = env_.runtime, id] { runtime.unsubscribe_logs(id); });
    }
  }

  LogEnvironment env_;
  call::CallPtr call_;
  const v1::GetTaskLogsRequest request_;
  const TaskRef ref_;
  LogCursor cursor_;
  std::array<Partial, 2> partial_;  // stdout, stderr: a line that has not ended
  std::array<uint64_t, 2> seen_{};  // bytes of each output in the stored records so far
  int blob_ = 0;
  uint64_t blob_offset_ = 0;
  uint64_t subscription_ = 0;
  bool subscribing_ = false;
  bool caught_up_ = false;
  bool retry_scheduled_ = false;
  size_t tail_max_ = 0;
  std::deque<std::string> tail_;
  std::shared_ptr<machine::Watch> watch_;
};

}  // namespace

std::string encode_cursor(const LogCursor& c) {
  return std::to_string(c.attempt) + "." + std::to_string(c.stdout_offset) + "." + std::to_string(c.stderr_offset);
}

Result<LogCursor> decode_cursor(std::string_view text) {
  LogCursor cursor;
  const char* p = text.data();
  const char* end = text.data() + text.size();
  const auto number = [&](auto& out, char separator) {
    const auto [next, error] = std::from_chars(p, end, out);
    if (error != std::errc() || (separator != 0 && (next == end || *next != separator))) return false;
    p = separator != 0 ? next + 1 : next;
    return true;
  };
  if (!number(cursor.attempt, '.') || !number(cursor.stdout_offset, '.') || !number(cursor.stderr_offset, 0) ||
      p != end || cursor.attempt < 1) {
    return uccp::fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one that a log line carried")
                          .with_field("since", "unknown cursor", "1.1024.0"));
  }
  return cursor;
}

void follow_logs(const LogEnvironment& env, const call::CallPtr& call, const v1::GetTaskLogsRequest& request) {
  LogCursor since;
  if (!request.since().empty()) {
    auto decoded = decode_cursor(request.since());
    if (!decoded) return call->finish(decoded.error());
    since = *decoded;
  }
  const machine::GroupView view = env.view();
  const machine::Scope scope{call->principal.tenant, call->name_space};
  if (!work::kTasks.contains(view, scope, request.id())) {
    return call->finish(
        Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + request.id() + " in this namespace")
            .with_resource("task", request.id()));
  }
  auto follower = std::make_shared<Follower>(env, call, request);
  call->keep(follower);
  env.io.post([follower, since, applied = view.applied()] { follower->start(since, applied); });
}

}  // namespace uccp::tasks
