#include "services/tasks/result_stream.h"

#include <array>
#include <charconv>

#include "base/bytes.h"
#include "services/function_names.h"
#include "services/tasks/log_format.h"

namespace uccp::tasks {
namespace {

constexpr size_t kQueuedBytesMax = 1u << 20;
constexpr size_t kLiveQueuedBytesMax = 16u << 20;
constexpr size_t kReadBytes = 1u << 20;
constexpr int64_t kLookAgainMs = 100;

// Follows the values of one task for one call. Lives on the `io` executor, which is one thread.
class ValueFollower : public std::enable_shared_from_this<ValueFollower> {
 public:
  ValueFollower(const LogEnvironment& environment, call::CallPtr call, const std::string& id)
      : env_(environment), call_(std::move(call)), ref_{call_->principal.tenant, call_->name_space, id} {}

  void start(const ResultCursor& since, LogIndex watch_since) {
    cursor_ = since;
    const auto wake = [weak = weak_from_this(), &io = env_.io] {
      io.post([weak] {
        if (auto self = weak.lock()) self->step();
      });
    };
    call_->on_drain(wake);
    call_->on_cancel([weak = weak_from_this(), &io = env_.io] {
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
        [weak = weak_from_this(), &io = env_.io](const Status& status) {
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
    if (call_->finished() || subscription_ != 0 || subscribing_ || call_->sink->queued_bytes() > kQueuedBytesMax)
      return;
    const auto row = work::kTasks.get(env_.view(), {ref_.tenant, ref_.name_space}, ref_.id);
    if (!row) return end(v1::STREAM_END_REASON_DELETED, "the task was removed");
    if (!work::is_terminal(row->task().status())) {
      begin_attempt(row->task().attempts() + 1);
      return subscribe();
    }
    begin_attempt(row->task().attempts());
    if (send_stored(row->task())) send_result(row->task());
  }

  // A later attempt yields its values from the first on.
  void begin_attempt(int32_t attempt) {
    if (cursor_.attempt == attempt) return;
    cursor_ = {.attempt = attempt, .index = cursor_.index};
    partial_.clear();
    stored_position_ = stored_bytes_ = 0;
  }

  // False: ended, or to be continued when the client has drained.
  bool send_stored(const v1::Task& task) {
    for (const v1::Artifact& artifact : task.artifacts()) {
      if (artifact.path() != functions::kYieldedArtifact) continue;
      while (stored_position_ < artifact.size()) {
        if (call_->sink->queued_bytes() > kQueuedBytesMax) return false;
        auto data = env_.blobs.read(artifact.sha256(), stored_position_, kReadBytes);
        if (!data) return fail(data.error());
        LogReader reader(*data, stored_position_);
        for (;;) {
          auto record = reader.next();
          if (!record) return fail(record.error());
          if (!*record) break;
          const uint64_t at = stored_bytes_;
          stored_bytes_ += (*record)->bytes.size();
          take(at, (*record)->bytes);
        }
        if (reader.position() == stored_position_) break;
        stored_position_ = reader.position();
      }
    }
    return true;
  }

  // Bytes of the values from `offset` on; what was taken before is skipped.
  void take(uint64_t offset, std::string_view bytes) {
    const uint64_t next = cursor_.offset + partial_.size();
    if (offset > next || offset + bytes.size() <= next) return;
    partial_.append(bytes.substr(next - offset));
    for (;;) {
      ByteReader in(partial_);
      const uint32_t size = in.u32();
      const std::string_view payload = in.raw(size);
      if (!in.ok()) return;
      cursor_.offset += sizeof(size) + size;
      cursor_.skipped += 1;
      if (cursor_.skipped > cursor_.index) send_value(payload);
      partial_.erase(0, sizeof(size) + size);
    }
  }

  void send_value(std::string_view payload) {
    v1::ResultItem item;
    if (!item.mutable_value()->ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return;
    item.set_index(static_cast<int32_t>(cursor_.index));
    cursor_.index += 1;
    item.set_cursor(encode_cursor(cursor_));
    call_->send(item.SerializeAsString());
  }

  void send_result(const v1::Task& task) {
    v1::ResultItem item;
    item.set_cursor(encode_cursor(cursor_));
    fill_result(task, *item.mutable_result());
    call_->send(item.SerializeAsString());
    end(v1::STREAM_END_REASON_COMPLETED, "the task has ended");
  }

  // Asks the agent of the running attempt for its values behind the cursor.
  void subscribe() {
    subscribing_ = true;
    env_.loop.post([self = shared_from_this(), cursor = cursor_] {
      WorkRuntime::LogSink sink{.chunk =
                                    [self](const internal::v1::LogChunk& chunk) {
                                      self->env_.io.post([self, chunk] { self->live_chunk(chunk); });
                                    },
                                .reply =
                                    [self](const internal::v1::LogReply& reply) {
                                      self->env_.io.post([self, reply] { self->live_reply(reply); });
                                    }};
      const uint64_t id = self->env_.runtime.subscribe_logs(
          self->ref_, cursor.attempt, {.stdout_offset = cursor.offset, .follow = true, .values = true},
          std::move(sink));
      self->env_.io.post([self, id] { self->subscribed(id); });
    });
  }

  void subscribed(uint64_t id) {
    subscribing_ = false;
    subscription_ = id;
    partial_.clear();
    if (call_->finished()) return stop();
    if (id == 0) look_again();
  }

  // An attempt starts without a change of the replicated task, so a waiting follower looks again now and then.
  void look_again() {
    env_.io.post_after(kLookAgainMs, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->step();
    });
  }

  void live_chunk(const internal::v1::LogChunk& chunk) {
    if (call_->finished() || subscription_ == 0 || chunk.attempt().attempt_number() != cursor_.attempt) return;
    if (call_->sink->queued_bytes() > kLiveQueuedBytesMax) {
      return end(v1::STREAM_END_REASON_TOO_SLOW, "the client takes values too slowly; resume with the last cursor");
    }
    take(chunk.offset(), chunk.data());
  }

  // The attempt is over, or its agent is gone: what remains is stored, or comes of the next attempt.
  void live_reply(const internal::v1::LogReply&) {
    if (subscription_ == 0) return;
    unsubscribe();
    partial_.clear();
    look_again();
  }

  bool fail(Status status) {
    stop();
    call_->finish(std::move(status));
    return false;
  }

  void end(v1::StreamEndReason reason, const std::string& message) {
    v1::ResultItem item;
    item.set_cursor(encode_cursor(cursor_));
    item.mutable_end()->set_reason(reason);
    item.mutable_end()->set_message(message);
    call_->send(item.SerializeAsString());
    stop();
    call_->finish(Status::ok());
  }

  void unsubscribe() {
    if (const uint64_t id = std::exchange(subscription_, 0))
      env_.loop.post([&runtime = env_.runtime, id] { runtime.unsubscribe_logs(id); });
  }
  void stop() {
    watch_.reset();
    unsubscribe();
  }

  LogEnvironment env_;
  const call::CallPtr call_;
  const TaskRef ref_;
  ResultCursor cursor_;
  std::string partial_;  // behind the cursor: the beginning of a value
  uint64_t stored_position_ = 0, stored_bytes_ = 0;
  uint64_t subscription_ = 0;
  bool subscribing_ = false;
  std::shared_ptr<machine::Watch> watch_;
};

}  // namespace

std::string encode_cursor(const ResultCursor& c) {
  return std::to_string(c.attempt) + "." + std::to_string(c.offset) + "." + std::to_string(c.skipped) + "." +
         std::to_string(c.index);
}

Result<ResultCursor> decode_result_cursor(std::string_view text) {
  ResultCursor cursor;
  const std::array<uint64_t*, 3> rest = {&cursor.offset, &cursor.skipped, &cursor.index};
  const char* p = text.data();
  const char* end = text.data() + text.size();
  auto read = std::from_chars(p, end, cursor.attempt);
  bool good = read.ec == std::errc();
  for (uint64_t* number : rest) {
    good = good && read.ptr != end && *read.ptr == '.';
    if (!good) break;
    read = std::from_chars(read.ptr + 1, end, *number);
    good = read.ec == std::errc();
  }
  if (!good || read.ptr != end || cursor.attempt < 1) {
    return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one that a result carried")
                    .with_field("since", "unknown cursor", "1.128.3.3"));
  }
  return cursor;
}

void fill_result(const v1::Task& task, v1::TaskResult& result) {
  result.set_id(task.id());
  result.set_status(task.status());
  result.set_status_reason(task.status_reason());
  if (task.has_exit_code()) result.set_exit_code(task.exit_code());
  result.set_signal(task.signal());
  *result.mutable_artifacts() = task.artifacts();
  if (task.has_value()) *result.mutable_value() = task.value();
  *result.mutable_usage() = task.usage();
  if (task.has_end_time()) *result.mutable_end_time() = task.end_time();
}

void follow_results(const LogEnvironment& env, const call::CallPtr& call, const v1::StreamResultsRequest& request) {
  ResultCursor since;
  if (!request.since().empty()) {
    auto decoded = decode_result_cursor(request.since());
    if (!decoded) return call->finish(decoded.error());
    since = *decoded;
  }
  const machine::GroupView view = env.view();
  if (!work::kTasks.contains(view, {call->principal.tenant, call->name_space}, request.id())) {
    return call->finish(
        Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + request.id() + " in this namespace")
            .with_resource("task", request.id()));
  }
  auto follower = std::make_shared<ValueFollower>(env, call, request.id());
  call->keep(follower);
  env.io.post([follower, since, applied = view.applied()] { follower->start(since, applied); });
}

}  // namespace uccp::tasks
