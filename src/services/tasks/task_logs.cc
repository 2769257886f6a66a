#include "services/tasks/task_logs.h"

#include <array>
#include <deque>

#include "base/bytes.h"
#include "base/dotted_numbers.h"
#include "services/tasks/log_format.h"

namespace uccp::tasks {
namespace {

constexpr size_t kLineBytesMax = 64u << 10;

std::string_view stream_name(LogStreamKind kind) {
  switch (kind) {
    case LogStreamKind::kStdout: return "stdout";
    case LogStreamKind::kStderr: return "stderr";
    case LogStreamKind::kNotice: return "notice";
  }
  return "notice";
}

class Follower final : public TaskFollower {
 public:
  Follower(const LogEnvironment& environment, call::CallPtr call, const v1::GetTaskLogsRequest& request,
           const LogCursor& since)
      : TaskFollower(environment, std::move(call), request.id()), request_(request), cursor_(since) {
    if (request.tail_lines() > 0 && request.since().empty()) tail_max_ = static_cast<size_t>(request.tail_lines());
    if (cursor_.attempt == 0) cursor_.attempt = std::max(1, request_.attempt());
  }

 private:
  using Row = internal::v1::TaskRow;

  void step() override {
    while (!call_->finished() && !is_blocked() && !is_subscribed()) {
      const auto now = row();
      if (!now) return end(v1::STREAM_END_REASON_DELETED, "the task was removed");
      const bool done = work::is_terminal(now->task().status());
      if (cursor_.attempt <= now->task().attempts()) {
        if (!send_stored(*now)) return;
        if (request_.attempt() > 0) return end(v1::STREAM_END_REASON_COMPLETED, "the attempt has ended");
        next_attempt();
        continue;
      }
      flush_tail_if_current();
      if (done) return end(v1::STREAM_END_REASON_COMPLETED, "the task has ended");
      if (caught_up_ && !request_.follow()) return end(v1::STREAM_END_REASON_CAUGHT_UP, "up to now");
      return follow_live();
    }
  }

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
        if (is_blocked() && tail_max_ == 0) return false;
        if (!send_stored_piece(blob)) return false;
      }
    }
    flush_partial();
    return true;
  }

  bool send_stored_piece(const v1::Blob& blob) {
    const auto data = read_blob(blob.sha256(), blob_offset_);
    if (!data) return false;
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
    const auto now = row();
    return now && !work::is_terminal(now->task().status());
  }

  // The output of the running attempt behind the cursor.
  void follow_live() {
    subscribe(cursor_.attempt, {.stdout_offset = cursor_.stdout_offset,
                                .stderr_offset = cursor_.stderr_offset,
                                .follow = request_.follow() && (tail_max_ == 0 || caught_up_)});
  }

  void subscribed(bool live) override {
    if (live) return;
    // Nothing runs just now: there is nothing live to see. A change of the task wakes us.
    caught_up_ = true;
    flush_tail_if_current();
    if (!request_.follow()) return step();
    const auto now = row();
    if (now && (work::is_terminal(now->task().status()) || now->task().attempts() >= cursor_.attempt)) return step();
    look_again();
  }

  void live_chunk(const internal::v1::LogChunk& chunk) override {
    const int64_t time_us = chunk.time().seconds() * 1'000'000 + chunk.time().nanos() / 1000;
    take(chunk.stream() == internal::v1::LOG_STREAM_STDERR ? LogStreamKind::kStderr : LogStreamKind::kStdout,
         chunk.offset(), chunk.data(), time_us);
  }

  // The agent sent all there is, or the attempt is over: what remains comes from its stored log.
  void live_reply(const internal::v1::LogReply& reply) override {
    caught_up_ = true;
    if (!reply.complete() && !reply.unknown()) {
      if (!request_.follow()) flush_partial();
      return step();
    }
    partial_ = {};
    if (request_.follow() || tail_max_ > 0) look_again();
    else step();
  }

  std::string end_item(v1::StreamEndReason reason, const std::string& message) override {
    for (std::string& line : tail_) call_->send(std::move(line));
    tail_.clear();
    v1::LogLine line;
    line.set_cursor(encode_cursor(cursor_));
    line.mutable_end()->set_reason(reason);
    line.mutable_end()->set_message(message);
    return line.SerializeAsString();
  }

  const v1::GetTaskLogsRequest request_;
  LogCursor cursor_;
  std::array<Partial, 2> partial_;  // stdout, stderr: a line that has not ended
  std::array<uint64_t, 2> seen_{};  // bytes of each output in the stored records so far
  int blob_ = 0;
  uint64_t blob_offset_ = 0;
  bool caught_up_ = false;
  size_t tail_max_ = 0;
  std::deque<std::string> tail_;
};

}  // namespace

std::string encode_cursor(const LogCursor& c) {
  return dotted_numbers(std::array<uint64_t, 3>{static_cast<uint64_t>(c.attempt), c.stdout_offset, c.stderr_offset});
}

Result<LogCursor> decode_cursor(std::string_view text) {
  std::array<uint64_t, 3> numbers{};
  if (!parse_dotted_numbers(text, numbers) || numbers[0] < 1 || numbers[0] > INT32_MAX) {
    return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one that a log line carried")
                    .with_field("since", "unknown cursor", "1.1024.0"));
  }
  return LogCursor{
      .attempt = static_cast<int32_t>(numbers[0]), .stdout_offset = numbers[1], .stderr_offset = numbers[2]};
}

void follow_logs(const LogEnvironment& env, const call::CallPtr& call, const v1::GetTaskLogsRequest& request) {
  LogCursor since;
  if (!request.since().empty()) {
    auto decoded = decode_cursor(request.since());
    if (!decoded) return call->finish(decoded.error());
    since = *decoded;
  }
  TaskFollower::run(std::make_shared<Follower>(env, call, request, since));
}

}  // namespace uccp::tasks
