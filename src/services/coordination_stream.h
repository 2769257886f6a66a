// One open server stream of a coordination service: first what is there, then every change behind it, without gaps.
//
// A cursor is "GROUP.INDEX.SEQUENCE": one command may cause several changes, and a stream goes on between them. Items
// are messages with `string cursor = 1` and `StreamEnd end = 4`. The initial items go out as fast as the client takes
// them; a client that leaves too many changes in its queue is cut off with the cursor to go on from.
//
// Lives as long as its call. At any time one thread works on it: first the work executor, then the watcher's.
#pragma once

#include <charconv>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/executor.h"
#include "call/call.h"
#include "call/wire.h"
#include "machine/ports.h"
#include "uccp/v1/types.pb.h"

namespace uccp::coordination {

inline constexpr size_t kStreamQueueBytesMax = 4u << 20;
inline constexpr size_t kStreamInitialQueueBytesMax = 1u << 20;
inline constexpr int64_t kStreamStallMsMax = 30'000;

class EventStream : public std::enable_shared_from_this<EventStream> {
 public:
  // Everything must outlive the call.
  struct Environment {
    machine::Reader& reader;
    machine::Watcher& watcher;
    Executor& work;
    const Clock& clock;
  };
  using Visit = std::function<bool(std::string_view position, std::string item)>;
  struct Source {
    std::string topic;
    machine::Scope scope;
    // Items for what is there, behind `position`, without cursor.
    std::function<void(const machine::GroupView&, std::string_view position, const Visit&)> initial;
    std::string synced;  // item behind them; empty: none, the initial items are complete by themselves
    // The item for a change; nothing if the client did not ask for it.
    std::function<std::optional<std::string>(const machine::Change&)> changed;
  };

  // Errors: invalid CURSOR_INVALID.
  static Status open(const call::CallPtr& call, std::string_view since, Source source, const Environment& environment) {
    std::shared_ptr<EventStream> stream(new EventStream(call, std::move(source), environment));
    if (!since.empty() && !stream->resume(since)) {
      return Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one of this stream")
          .with_field("since", "is not a cursor of this stream", "the cursor of the last item");
    }
    call->keep(stream);
    call->on_cancel([weak = stream->weak_from_this()] {
      if (auto self = weak.lock()) self->call_->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    });
    stream->begin(call->read_level);
    return Status::ok();
  }

 private:
  EventStream(const call::CallPtr& call, Source source, const Environment& environment)
      : call_(call), source_(std::move(source)), env_(environment) {}

  static std::string cursor_at(LogIndex index, uint32_t sequence) {
    return std::to_string(kCoreGroup.value) + "." + std::to_string(index.value) + "." + std::to_string(sequence);
  }
  bool resume(std::string_view text) {
    const std::string group = std::to_string(kCoreGroup.value) + ".";
    if (!text.starts_with(group)) return false;
    uint64_t index = 0;
    const char* end = text.data() + text.size();
    const auto first = std::from_chars(text.data() + group.size(), end, index);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != '.') return false;
    const auto second = std::from_chars(first.ptr + 1, end, after_sequence_);
    if (second.ec != std::errc() || second.ptr != end) return false;
    after_ = LogIndex(index);
    cursor_ = text;
    return true;
  }

  void begin(const machine::ReadLevel& level) {
    const bool fresh = level.kind == machine::ReadLevel::Kind::kLinearizable;
    env_.reader.read(kCoreGroup, level, [self = shared_from_this(), fresh](Result<machine::GroupView> view) {
      if (!view) return self->call_->finish(std::move(view.error()));
      if (!self->after_) {
        self->view_ = std::move(*view);
        self->stalled_since_ = self->env_.clock.boot();
        return self->env_.work.post([self] { self->send_initial(); });
      }
      // The changes behind the last one of the same index are still to come.
      if (self->after_ <= view->applied()) return self->follow(LogIndex(self->after_.value - 1));
      if (!fresh) return self->begin(machine::ReadLevel::linearizable());
      self->end(Status(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                       "the cursor is ahead of this cluster's history; begin again without a cursor"));
    });
  }

  void send_initial() {
    if (call_->finished()) return;
    const LogIndex applied = view_.applied();
    // Before the last initial item there is no place to go on from, unless each is complete by itself.
    cursor_ = source_.synced.empty() ? cursor_at(applied, UINT32_MAX) : cursor_at(LogIndex(0), 0);
    size_t rows = 0;
    bool whole = true;
    source_.initial(view_, position_, [&](std::string_view position, std::string item) {
      if (rows++ == kRowsPerTurn || call_->sink->queued_bytes() > kStreamInitialQueueBytesMax) return whole = false;
      position_ = position;
      send(std::move(item));
      return true;
    });
    if (!whole) return wait_for_drain();
    view_ = {};
    cursor_ = cursor_at(applied, UINT32_MAX);
    if (!source_.synced.empty()) send(source_.synced);
    after_ = applied;
    after_sequence_ = UINT32_MAX;
    follow(applied);
  }

  void wait_for_drain() {
    const size_t queued = call_->sink->queued_bytes();
    const auto again = [self = shared_from_this()] { self->send_initial(); };
    if (queued != stalled_bytes_ || queued <= kStreamInitialQueueBytesMax) {
      stalled_bytes_ = queued;
      stalled_since_ = env_.clock.boot();
    } else if (env_.clock.boot().ms_since(stalled_since_) > kStreamStallMsMax) {
      return end(too_slow());
    }
    if (queued <= kStreamInitialQueueBytesMax) env_.work.post(again);
    else env_.work.post_after(5, again);
  }

  void follow(LogIndex since) {
    watch_ = env_.watcher.watch(
        {.topic = source_.topic, .tenant = source_.scope.tenant, .name_space = source_.scope.name_space}, since,
        [weak = weak_from_this()](const machine::Change& change) {
          const auto self = weak.lock();
          return self && self->on_change(change);
        },
        [weak = weak_from_this()](Status status) {
          if (const auto self = weak.lock()) self->end(std::move(status));
        });
  }

  bool on_change(const machine::Change& change) {
    if (call_->finished()) return false;
    if (change.index == after_ && change.sequence <= after_sequence_) return true;
    if (call_->sink->queued_bytes() > kStreamQueueBytesMax) {
      end(too_slow());
      return false;
    }
    if (auto item = source_.changed(change)) {
      cursor_ = cursor_at(change.index, change.sequence);
      send(std::move(*item));
    }
    return true;
  }

  void send(std::string item) {
    call::put_bytes(item, 1, cursor_);
    call_->send(std::move(item));
  }

  static Status too_slow() {
    return Status(Code::kExhausted, "WATCHER_TOO_SLOW",
                  "more than " + std::to_string(kStreamQueueBytesMax >> 20) +
                      " MiB of changes waited for this client; read faster, and go on from the last cursor")
        .with_retry_after_ms(1000);
  }

  void end(Status status) {
    if (call_->finished()) return;
    v1::StreamEnd end;
    end.set_reason(status.reason() == "CURSOR_COMPACTED"   ? v1::STREAM_END_REASON_COMPACTED
                   : status.reason() == "WATCHER_TOO_SLOW" ? v1::STREAM_END_REASON_TOO_SLOW
                                                           : v1::STREAM_END_REASON_RECONNECT);
    end.set_message(status.message());
    std::string item;
    call::put_bytes(item, 4, end.SerializeAsString());
    send(std::move(item));
    call_->finish(std::move(status));
  }

  static constexpr size_t kRowsPerTurn = 500;

  const call::CallPtr call_;
  const Source source_;
  const Environment env_;
  LogIndex after_;  // changes up to here, and of this index up to after_sequence_, were sent
  uint32_t after_sequence_ = 0;
  std::string cursor_;       // of the last item
  machine::GroupView view_;  // while the initial items are sent
  std::string position_;     // of the last initial item
  size_t stalled_bytes_ = 0;
  BootTime stalled_since_;
  std::shared_ptr<machine::Watch> watch_;
};

}  // namespace uccp::coordination
