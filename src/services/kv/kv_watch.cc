#include "services/kv/kv_watch.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/dotted_numbers.h"
#include "call/wire.h"
#include "services/kv/kv_range.h"

namespace uccp::kv {
namespace {

using call::CallPtr;
using machine::ReadLevel;
using Item = v1::WatchResponse;

// Of one chunk of the past, and of one item.
constexpr size_t kPastRowsMax = 2'000;
constexpr size_t kItemBytesMax = 1u << 20;
constexpr int64_t kDrainPollMs = 20;
constexpr int64_t kProgressTickMs = 50;

std::string cursor_at(LogPlace place) {
  std::string text = std::to_string(place.revision);
  if (place.number > 0) text += "." + std::to_string(place.number);
  return text;
}

// "REVISION" or "REVISION.NUMBER": where to go on.
Result<LogPlace> parse_cursor(std::string_view text) {
  std::array<uint64_t, 2> numbers{};
  const std::span<uint64_t> given(numbers.data(), text.find('.') == std::string_view::npos ? 1 : 2);
  if (parse_dotted_numbers(text, given) && numbers[0] > 0 && numbers[1] <= UINT32_MAX)
    return LogPlace{.revision = numbers[0], .number = static_cast<uint32_t>(numbers[1])};
  return fail(Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one of a watch")
                  .with_field("since", "is not a cursor of Watch", "the cursor of the last item"));
}

v1::StreamEndReason reason_of(const Status& status) {
  if (status.reason() == "REVISION_COMPACTED") return v1::STREAM_END_REASON_COMPACTED;
  return v1::STREAM_END_REASON_RECONNECT;
}

}  // namespace

// One event, encoded at most twice for all who get it.
struct EncodedEvent {
  Event event;
  uint64_t revision;
  uint32_t number;
  mutable std::string with_before, without;

  const std::string& bytes(bool prev_kv) const {
    std::string& bytes = prev_kv ? with_before : without;
    if (bytes.empty()) {
      append_key_event(bytes, event.kind, event.key, revision, event.row, prev_kv ? event.before : std::string_view());
    }
    return bytes;
  }
};

struct WatchHub::Watch {
  enum class State : uint8_t { kPast, kLive, kEnded };

  CallPtr call;
  int64_t id = 0;
  machine::Scope scope;
  EventFilter filter;
  LogPlace next;  // everything before it was sent, or lies in `pending`
  State state = State::kPast;
  std::string pending;  // events, encoded
  LogPlace pending_from;
  uint64_t pending_revision = 0;
  size_t pending_count = 0;
  int64_t progress_ms = 0;
  BootTime sent;  // the last item
};

std::shared_ptr<WatchHub> WatchHub::make(const Environment& environment) {
  return std::shared_ptr<WatchHub>(new WatchHub(environment));
}

WatchHub::WatchHub(const Environment& environment)
    : env_(environment),
      events_sent_(env_.metrics.counter("uccp_kv_watch_events_total", "Events sent to watches of keys")),
      fell_behind_(env_.metrics.counter("uccp_kv_watch_behind_total",
                                        "Times that a watch of keys was too slow and went back to the history")),
      open_(env_.metrics.gauge("uccp_kv_watches", "Watches of keys that are open on this node")) {}

// --- beginning and end ----------------------------------------------------------------------------------------------

void WatchHub::open(const CallPtr& call, const v1::WatchRequest& request) {
  auto watch = std::make_shared<Watch>();
  watch->call = call;
  watch->scope = {call->principal.tenant, call->name_space};
  auto range = range_of(request);
  if (!range) return call->finish(std::move(range.error()));
  watch->filter = {std::move(*range), request.no_put(), request.no_delete(), request.prev_kv()};
  watch->next.revision = static_cast<uint64_t>(request.start_revision());
  if (!request.since().empty()) {
    auto place = parse_cursor(request.since());
    if (!place) return call->finish(std::move(place.error()));
    watch->next = *place;
  }
  const auto& interval = request.progress_interval();
  watch->progress_ms = interval.seconds() * 1000 + interval.nanos() / 1'000'000;
  call->on_cancel([weak = weak_from_this(), weak_watch = std::weak_ptr(watch)] {
    const auto self = weak.lock();
    const auto gone = weak_watch.lock();
    if (!self || !gone) return;
    gone->call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    self->env_.events.post([self, gone] { self->forget(gone); });
  });
  env_.events.post([self = shared_from_this(), watch] { self->start(watch); });
}

void WatchHub::start(const WatchPtr& watch) {
  if (watch->call->finished()) return;
  if (watches_.size() >= kWatchesMax) {
    return watch->call->finish(Status(Code::kExhausted, "WATCHERS_EXHAUSTED",
                                      std::to_string(kWatchesMax) + " watches of keys are open on this node"));
  }
  subscribe();
  watch->id = ++last_id_;
  watches_[watch->id] = watch;
  open_.set(static_cast<double>(watches_.size()));
  if (watch->progress_ms > 0) {
    progress_due_.emplace(env_.clock.boot().plus_ms(watch->progress_ms), watch->id);
    schedule_progress();
  }
  env_.reader.read(kCoreGroup, watch->call->read_level, [self = shared_from_this(), watch](auto view) {
    self->env_.events.post([self, watch, view = std::move(view)]() mutable {
      if (watch->state == Watch::State::kEnded) return;
      if (!view) return self->end(watch, std::move(view.error()));
      self->begin(watch, *view);
    });
  });
}

void WatchHub::subscribe() {
  if (subscription_) return;
  subscription_ = env_.watcher.watch(
      {.group = kCoreGroup, .topic = std::string(kTopic), .live_only = true}, LogIndex(0),
      [weak = weak_from_this()](const machine::Change& change) {
        const auto self = weak.lock();
        return self && self->on_change(change);
      },
      [weak = weak_from_this()](const Status& status) {
        // Not from within the hub that calls: a watch may be opened anew.
        if (const auto self = weak.lock()) self->env_.events.post([self, status] { self->on_lost(status); });
      });
}

void WatchHub::begin(const WatchPtr& watch, const machine::GroupView& view) {
  const Head head = read_head(view, watch->scope);
  if (watch->next.revision == 0) watch->next.revision = head.revision + 1;
  std::string item;
  call::put_uint(item, Item::kCreatedFieldNumber, 1);
  call::put_uint(item, Item::kWatchIdFieldNumber, static_cast<uint64_t>(watch->id));
  call::put_uint(item, Item::kRevisionFieldNumber, head.revision);
  call::put_bytes(item, Item::kCursorFieldNumber, cursor_at(watch->next));
  watch->sent = env_.clock.boot();
  watch->call->send(std::move(item));
  if (watch->next.revision <= head.revision) return catch_up(watch);
  go_live(watch);
}

void WatchHub::end(const WatchPtr& watch, Status status, uint64_t compact_revision) {
  forget(watch);
  if (watch->call->finished()) return;
  v1::WatchResponse last;
  last.set_cursor(cursor_at(watch->next));
  last.set_watch_id(watch->id);
  last.set_compact_revision(static_cast<int64_t>(compact_revision));
  last.mutable_end()->set_reason(reason_of(status));
  last.mutable_end()->set_message(status.message());
  watch->call->send(last.SerializeAsString());
  watch->call->finish(std::move(status));
}

void WatchHub::forget(const WatchPtr& watch) {
  if (watch->state == Watch::State::kEnded || watches_.erase(watch->id) == 0) return;
  leave_live(*watch);
  watch->state = Watch::State::kEnded;
  open_.set(static_cast<double>(watches_.size()));
}

void WatchHub::leave_live(Watch& watch) {
  if (watch.state != Watch::State::kLive) return;
  stores_[watch.scope].live.remove(watch.filter.range, &watch);
  dirty_.erase(watch.id);
  watch.pending.clear();
  watch.pending_count = 0;
  watch.state = Watch::State::kPast;
}

void WatchHub::on_lost(const Status& status) {
  subscription_.reset();
  const bool stopping = status.code() == Code::kUnavailable;
  const std::map<int64_t, WatchPtr> all = watches_;
  for (const auto& [id, watch] : all) {
    if (stopping) {
      end(watch, status);
    } else if (watch->state == Watch::State::kLive) {
      // The state was replaced by a later one: what lies between was never told.
      fall_behind(watch);
    }
  }
  if (!stopping && !watches_.empty()) subscribe();
}

// --- live -----------------------------------------------------------------------------------------------------------

void WatchHub::go_live(const WatchPtr& watch) {
  Store& store = stores_[watch->scope];
  if (watch->next.revision <= store.told) return catch_up(watch);
  watch->state = Watch::State::kLive;
  store.live.add(watch->filter.range, watch.get());
  answer_probes(store);
}

bool WatchHub::on_change(const machine::Change& change) {
  if (watches_.empty()) {
    // Nobody is left: the next watch subscribes anew, and looks at the state first.
    stores_.clear();
    subscription_.reset();
    return false;
  }
  Store& store = stores_[change.scope];
  const uint64_t revision = ByteReader(change.key).u64();
  uint32_t number = 0;
  for (const Event& event : decode_events(change.payload)) {
    const EncodedEvent encoded{event, revision, number++, {}, {}};
    store.live.find(event.key, [&](Watch* watch) {
      if (encoded.revision < watch->next.revision || !watch->filter.wants(event.kind, event.key)) return;
      add_event(*watch, encoded);
    });
  }
  store.told = revision;
  if (!store.probes.empty() || !dirty_.empty()) schedule_flush();
  return true;
}

void WatchHub::add_event(Watch& watch, const EncodedEvent& event) {
  const std::string& bytes = event.bytes(watch.filter.prev_kv);
  if (!watch.pending.empty() && watch.pending.size() + bytes.size() > kItemBytesMax) {
    send_pending(watch, {event.revision, watch.pending_revision == event.revision ? event.number : 0});
  }
  if (watch.pending.empty()) watch.pending_from = {event.revision, event.number};
  watch.pending += bytes;
  watch.pending_revision = event.revision;
  ++watch.pending_count;
  dirty_.insert(watch.id);
}

// Behind everything that is told already, so that what comes together is sent together.
void WatchHub::schedule_flush() {
  if (std::exchange(flush_scheduled_, true)) return;
  env_.events.post([self = shared_from_this()] {
    self->flush_scheduled_ = false;
    self->flush();
  });
}

void WatchHub::flush() {
  for (const int64_t id : std::exchange(dirty_, {})) {
    const auto it = watches_.find(id);
    if (it == watches_.end()) continue;
    const WatchPtr watch = it->second;
    if (watch->call->finished()) {
      forget(watch);
    } else if (watch->call->sink->queued_bytes() > kWatchQueueBytesMax) {
      fell_behind_.add();
      fall_behind(watch);
    } else {
      send_pending(*watch, {watch->pending_revision + 1, 0});
    }
  }
  for (auto& [scope, store] : stores_) answer_probes(store);
}

// `next`: where the events behind these begin.
void WatchHub::send_pending(Watch& watch, LogPlace next) {
  if (watch.pending.empty()) return;
  send_events(watch, std::exchange(watch.pending, {}), std::exchange(watch.pending_count, 0), next);
}

void WatchHub::send_events(Watch& watch, std::string events, size_t count, LogPlace next) {
  watch.next = next;
  std::string item = std::move(events);
  call::put_bytes(item, Item::kCursorFieldNumber, cursor_at(next));
  call::put_uint(item, Item::kRevisionFieldNumber, next.number > 0 ? next.revision : next.revision - 1);
  call::put_uint(item, Item::kWatchIdFieldNumber, static_cast<uint64_t>(watch.id));
  if (next.number > 0) call::put_uint(item, Item::kFragmentFieldNumber, 1);
  watch.sent = env_.clock.boot();
  events_sent_.add(count);
  watch.call->send(std::move(item));
}

// --- the past -------------------------------------------------------------------------------------------------------

// What it has not got yet comes from the log of revisions.
void WatchHub::fall_behind(const WatchPtr& watch) {
  const LogPlace told{stores_[watch->scope].told + 1, 0};
  watch->next = std::max(watch->next, watch->pending_count > 0 ? watch->pending_from : told);
  leave_live(*watch);
  catch_up(watch);
}

void WatchHub::catch_up(const WatchPtr& watch) {
  if (watch->state == Watch::State::kEnded) return;
  if (watch->call->finished()) return forget(watch);
  const size_t waiting = watch->call->sink->queued_bytes();
  // A poll rather than Call::on_drain: the doors' limit may be above the one here, and then that would never come.
  if (waiting > kWatchResumeBytes) {
    env_.events.post_after(kDrainPollMs, [self = shared_from_this(), watch] { self->catch_up(watch); });
    return;
  }
  // The newest state of this node.
  env_.reader.read(
      kCoreGroup, {.kind = ReadLevel::Kind::kSession},
      [self = shared_from_this(), watch, place = watch->next](auto view) {
        self->env_.work.post([self, watch, place, view = std::move(view)]() mutable {
          PastReader::Chunk chunk;
          if (view) chunk = PastReader::read(*view, watch->scope, watch->filter, place, kPastRowsMax, kItemBytesMax);
          Status status = view ? Status::ok() : std::move(view.error());
          self->env_.events.post([self, watch, chunk = std::move(chunk), status = std::move(status)]() mutable {
            if (watch->state == Watch::State::kEnded) return;
            if (!status.is_ok()) return self->end(watch, std::move(status));
            self->take_past(watch, std::move(chunk));
          });
        });
      });
}

void WatchHub::take_past(const WatchPtr& watch, PastReader::Chunk chunk) {
  if (chunk.compacted != 0) {
    return end(watch,
               Status(Code::kFailedPrecondition, "REVISION_COMPACTED",
                      "the revision " + std::to_string(watch->next.revision) +
                          " is compacted; read the keys, and watch from there"),
               chunk.compacted);
  }
  if (chunk.count > 0) send_events(*watch, std::move(chunk.events), chunk.count, chunk.next);
  watch->next = chunk.next;
  if (!chunk.whole) return catch_up(watch);
  go_live(watch);
}

// --- progress -------------------------------------------------------------------------------------------------------

void WatchHub::send_progress(Watch& watch, uint64_t revision) {
  std::string item;
  watch.next = std::max(watch.next, LogPlace{revision + 1, 0});
  call::put_bytes(item, Item::kCursorFieldNumber, cursor_at(watch.next));
  call::put_uint(item, Item::kRevisionFieldNumber, revision);
  call::put_uint(item, Item::kWatchIdFieldNumber, static_cast<uint64_t>(watch.id));
  watch.sent = env_.clock.boot();
  watch.call->send(std::move(item));
}

uint64_t WatchHub::reached(const Watch& watch) {
  if (watch.state != Watch::State::kLive || watch.pending_count > 0) return 0;
  return std::max(stores_[watch.scope].told, watch.next.revision - 1);
}

void WatchHub::probe(const CallPtr& call, std::vector<int64_t> ids, uint64_t revision) {
  env_.events.post([self = shared_from_this(), call, ids = std::move(ids), revision] {
    size_t found = 0;
    for (const int64_t id : ids) {
      const auto it = self->watches_.find(id);
      if (it == self->watches_.end() || it->second->scope != machine::Scope{call->principal.tenant, call->name_space}) {
        continue;
      }
      ++found;
      self->stores_[it->second->scope].probes.emplace(revision, it->second);
    }
    if (found == 0) {
      return call->finish(
          Status(Code::kNotFound, "WATCH_NOT_FOUND",
                 "none of the watches is open on this node; a watch is known only where it was opened"));
    }
    v1::ProbeWatchesResponse response;
    response.set_revision(static_cast<int64_t>(revision));
    call->reply(response.SerializeAsString());
    self->schedule_flush();
  });
}

void WatchHub::answer_probes(Store& store) {
  for (auto it = store.probes.begin(); it != store.probes.end();) {
    const WatchPtr watch = it->second.lock();
    const bool gone = !watch || watch->state == Watch::State::kEnded;
    const uint64_t revision = gone ? 0 : reached(*watch);
    if (!gone && revision < it->first) {
      ++it;
      continue;
    }
    it = store.probes.erase(it);
    if (!gone) send_progress(*watch, revision);
  }
}

void WatchHub::schedule_progress() {
  if (progress_due_.empty() || std::exchange(progress_scheduled_, true)) return;
  env_.events.post_after(kProgressTickMs, [self = shared_from_this()] {
    self->progress_scheduled_ = false;
    self->tick_progress();
    self->schedule_progress();
  });
}

void WatchHub::tick_progress() {
  const BootTime now = env_.clock.boot();
  while (!progress_due_.empty() && progress_due_.begin()->first <= now) {
    const int64_t id = progress_due_.extract(progress_due_.begin()).mapped();
    const auto it = watches_.find(id);
    if (it == watches_.end()) continue;
    Watch& watch = *it->second;
    if (now.ms_since(watch.sent) >= watch.progress_ms) {
      if (const uint64_t revision = reached(watch)) send_progress(watch, revision);
      else watch.sent = now;  // it is at work on the past
    }
    progress_due_.emplace(watch.sent.plus_ms(watch.progress_ms), id);
  }
}

}  // namespace uccp::kv
