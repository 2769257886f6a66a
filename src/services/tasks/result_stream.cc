#include "services/tasks/result_stream.h"

#include <array>

#include "base/bytes.h"
#include "base/dotted_numbers.h"
#include "services/function_names.h"
#include "services/tasks/log_format.h"

namespace uccp::tasks {
namespace {

// The numbers of a cursor, in the order in which they are written.
constexpr size_t kCursorNumbers = 4;

class ValueFollower final : public TaskFollower {
 public:
  ValueFollower(const LogEnvironment& environment, call::CallPtr call, const std::string& id, const ResultCursor& since)
      : TaskFollower(environment, std::move(call), id), cursor_(since) {}

 private:
  void step() override {
    if (call_->finished() || is_subscribed() || is_blocked()) return;
    const auto now = row();
    if (!now) return end(v1::STREAM_END_REASON_DELETED, "the task was removed");
    if (!work::is_terminal(now->task().status())) {
      begin_attempt(now->task().attempts() + 1);
      return subscribe(cursor_.attempt, {.stdout_offset = cursor_.offset, .follow = true, .values = true});
    }
    begin_attempt(now->task().attempts());
    if (send_stored(now->task())) send_result(now->task());
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
        if (is_blocked()) return false;
        const auto data = read_blob(artifact.sha256(), stored_position_);
        if (!data) return false;
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

  void subscribed(bool live) override {
    partial_.clear();
    if (!live) look_again();
  }

  void live_chunk(const internal::v1::LogChunk& chunk) override { take(chunk.offset(), chunk.data()); }

  // The attempt is over, or its agent is gone: what remains is stored, or comes of the next attempt.
  void live_reply(const internal::v1::LogReply&) override {
    partial_.clear();
    look_again();
  }

  std::string end_item(v1::StreamEndReason reason, const std::string& message) override {
    v1::ResultItem item;
    item.set_cursor(encode_cursor(cursor_));
    item.mutable_end()->set_reason(reason);
    item.mutable_end()->set_message(message);
    return item.SerializeAsString();
  }

  ResultCursor cursor_;
  std::string partial_;  // behind the cursor: the beginning of a value
  uint64_t stored_position_ = 0, stored_bytes_ = 0;
};

}  // namespace

std::string encode_cursor(const ResultCursor& c) {
  return dotted_numbers(
      std::array<uint64_t, kCursorNumbers>{static_cast<uint64_t>(c.attempt), c.offset, c.skipped, c.index});
}

Result<ResultCursor> decode_result_cursor(std::string_view text) {
  std::array<uint64_t, kCursorNumbers> numbers{};
  if (!parse_dotted_numbers(text, numbers) || numbers[0] < 1 || numbers[0] > INT32_MAX || numbers[3] > INT32_MAX) {
    return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one that a result carried")
                    .with_field("since", "unknown cursor", "1.128.3.3"));
  }
  return ResultCursor{
      .attempt = static_cast<int32_t>(numbers[0]), .offset = numbers[1], .skipped = numbers[2], .index = numbers[3]};
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
  TaskFollower::run(std::make_shared<ValueFollower>(env, call, request.id(), since));
}

}  // namespace uccp::tasks
