#include "services/discovery/discovery_watch.h"

#include <array>

#include "base/dotted_numbers.h"
#include "call/contract.h"
#include "call/wire.h"
#include "services/discovery/discovery_query.h"

namespace uccp::discovery {
namespace {

constexpr size_t kRowsPerTurn = 500;
constexpr int64_t kDrainPollMs = 5;

using Event = v1::ServiceEvent;

std::string cursor_at(LogIndex index) { return std::to_string(kCoreGroup.value) + "." + std::to_string(index.value); }

Result<LogIndex> parse_cursor(std::string_view text) {
  std::array<uint64_t, 2> numbers{};  // group and index
  if (parse_dotted_numbers(text, numbers) && numbers[0] == kCoreGroup.value) return LogIndex(numbers[1]);
  return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one of this stream")
                  .with_field("since", "is not a cursor of WatchServices", "the cursor of the last item"));
}

v1::StreamEndReason reason_of(const Status& status) {
  if (status.is_ok()) return v1::STREAM_END_REASON_COMPLETED;
  if (status.reason() == "CURSOR_COMPACTED") return v1::STREAM_END_REASON_COMPACTED;
  if (status.reason() == "WATCHER_TOO_SLOW") return v1::STREAM_END_REASON_TOO_SLOW;
  return v1::STREAM_END_REASON_RECONNECT;
}

Status too_slow() {
  return Status(Code::kExhausted, "WATCHER_TOO_SLOW",
                "more than " + std::to_string(kWatchQueueBytesMax >> 20) +
                    " MiB of changes waited for this client; read faster, and go on from the last cursor")
      .with_retry_after_ms(1000);
}

}  // namespace

Result<std::shared_ptr<ServiceWatch>> ServiceWatch::make(const call::CallPtr& call,
                                                         const v1::WatchServicesRequest& request,
                                                         const Environment& environment) {
  std::shared_ptr<ServiceWatch> watch(new ServiceWatch(call, environment));
  watch->scope_ = {call->principal.tenant, call->name_space};
  watch->name_ = request.name();
  UCCP_TRY(watch->labels_, call::LabelSelector::compile(request.labels()));
  if (!request.since().empty()) {
    UCCP_TRY(watch->since_, parse_cursor(request.since()));
  }
  watch->cursor_ = cursor_at(watch->since_);
  return watch;
}

void ServiceWatch::start() {
  // The call owns the watch and lets go of it when it ends; everything else holds it weakly, or for one turn.
  call_->keep(shared_from_this());
  call_->on_cancel([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->call_->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
  });
  begin(call_->read_level);
}

void ServiceWatch::begin(const machine::ReadLevel& level) {
  const bool fresh = level.kind == machine::ReadLevel::Kind::kLinearizable;
  env_.reader.read(kCoreGroup, level, [self = shared_from_this(), fresh](Result<machine::GroupView> view) {
    if (!view) return self->call_->finish(std::move(view.error()));
    if (!self->since_) {
      self->view_ = std::move(*view);
      self->stalled_since_ = self->env_.clock.boot();
      return self->env_.work.post([self] { self->send_initial(); });
    }
    if (self->since_ <= view->applied()) return self->follow(self->since_);
    // Ahead of a view that may be stale: look again. Ahead of everything: it is of another cluster, or of lost data.
    if (!fresh) return self->begin(machine::ReadLevel::linearizable());
    self->end(Status(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                     "the cursor is ahead of this cluster's history; list the services again and watch from there"));
  });
}

bool ServiceWatch::wanted(std::string_view row) const {
  return labels_.empty() || labels_.matches(view_row(row).service, v1::ServiceRegistration::kLabelsFieldNumber);
}

// Initial rows have the cursor that begins again: nothing before SYNCED is a place to go on from.
void ServiceWatch::send_initial() {
  if (call_->finished()) return;
  size_t rows = 0;
  bool whole = true;
  scan_services(view_, scope_, name_, position_, [&](std::string_view position, std::string_view row) {
    if (rows++ == kRowsPerTurn || call_->sink->queued_bytes() > kInitialQueueBytesMax) {
      whole = false;
      return false;
    }
    position_ = position;
    if (wanted(row)) send_event(ChangeKind::kAdded, row);
    return true;
  });
  if (!whole) return wait_for_drain();
  const LogIndex applied = view_.applied();
  view_ = {};
  cursor_ = cursor_at(applied);
  std::string item;
  call::put_bytes(item, Event::kCursorFieldNumber, cursor_);
  call::put_uint(item, Event::kKindFieldNumber, v1::SERVICE_EVENT_KIND_SYNCED);
  call_->send(std::move(item));
  follow(applied);
}

// A poll rather than Call::on_drain: the doors' limit may be above the one here, and then that would never come.
void ServiceWatch::wait_for_drain() {
  const size_t queued = call_->sink->queued_bytes();
  const auto again = [self = shared_from_this()] { self->send_initial(); };
  if (queued != stalled_bytes_ || queued <= kInitialQueueBytesMax) {
    stalled_bytes_ = queued;
    stalled_since_ = env_.clock.boot();
  } else if (env_.clock.boot().ms_since(stalled_since_) > kInitialStallMsMax) {
    return end(too_slow());
  }
  if (queued <= kInitialQueueBytesMax) env_.work.post(again);
  else env_.work.post_after(kDrainPollMs, again);
}

void ServiceWatch::follow(LogIndex since) {
  watch_ = env_.watcher.watch(
      {.group = kCoreGroup, .topic = std::string(kTopic), .tenant = scope_.tenant, .name_space = scope_.name_space},
      since,
      [weak = weak_from_this()](const machine::Change& change) {
        const auto self = weak.lock();
        return self && self->on_change(change);
      },
      [weak = weak_from_this()](Status status) {
        if (const auto self = weak.lock()) self->end(std::move(status));
      });
}

bool ServiceWatch::on_change(const machine::Change& change) {
  if (call_->finished()) return false;
  if (call_->sink->queued_bytes() > kWatchQueueBytesMax) {
    end(too_slow());
    return false;
  }
  const std::string_view row = change.payload;
  if (!name_.empty()) {
    static const call::FieldPath kName =
        *call::FieldPath::compile(call::Contract::get().plan("uccp.v1.ServiceRegistration"), "service_name");
    if (call::get_string(kName, view_row(row).service) != name_) return true;
  }
  auto kind = static_cast<ChangeKind>(change.kind);
  if (!wanted(row)) {
    // It may have matched before: for this watcher it is gone.
    if (kind != ChangeKind::kUpdated) return true;
    kind = ChangeKind::kRemoved;
  }
  cursor_ = cursor_at(change.index);
  send_event(kind, row);
  return true;
}

void ServiceWatch::send_event(ChangeKind kind, std::string_view row) {
  const RowView view = view_row(row);
  std::string item;
  item.reserve(view.service.size() + 64);
  call::put_bytes(item, Event::kCursorFieldNumber, cursor_);
  call::put_uint(item, Event::kKindFieldNumber, static_cast<uint64_t>(kind));
  const size_t mark = call::begin_bytes(item, Event::kServiceFieldNumber);
  item.append(view.service);
  append_times(item, view, env_.presence);
  call::end_bytes(item, mark);
  call_->send(std::move(item));
}

void ServiceWatch::end(Status status) {
  if (call_->finished()) return;
  v1::ServiceEvent last;
  last.set_cursor(cursor_);
  last.mutable_end()->set_reason(reason_of(status));
  last.mutable_end()->set_message(status.is_ok() ? "the stream is complete" : status.message());
  call_->send(last.SerializeAsString());
  call_->finish(std::move(status));
}

}  // namespace uccp::discovery
