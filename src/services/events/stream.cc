#include "services/events/stream.h"

#include <algorithm>

#include "call/wire.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using call::CallPtr;
using machine::GroupView;
using services::ms_of;
using services::us_of;
using Item = v1::EventDelivery;

constexpr int64_t kDrainPollMs = 20;
// Items that are given to the door at once, where so many are at hand.
constexpr size_t kRunBytes = 64u << 10;
// Of an item beside what is stored of its event.
constexpr size_t kItemBytes = 256;
// Fetches that failed one after the other, with a pause each, until the stream gives up.
constexpr int kFailuresMax = 40;
constexpr int64_t kFailurePauseMs = 50;

}  // namespace

Streams::Stream::Stream(std::shared_ptr<Streams> owner, CallPtr call, v1::SubscribeRequest request, Cursor since,
                        EventFilter filter)
    : owner_(std::move(owner)),
      call_(std::move(call)),
      request_(std::move(request)),
      scope_{call_->principal.tenant, call_->name_space},
      since_(std::move(since)),
      filter_(std::move(filter)),
      cursor_(since_),
      only_partitions_(request_.partitions().begin(), request_.partitions().end()) {}

// --- beginning ------------------------------------------------------------------------------------------------------

void Streams::Stream::start() {
  owner_->env_.feed.add(this);
  sent_at_ = owner_->env_.clock.boot();
  owner_->env_.reader.read(kCoreGroup, call_->read_level, [self = shared_from_this()](Result<GroupView> view) {
    self->owner_->env_.events.post([self, view = std::move(view)]() mutable {
      if (self->ended_) return;
      if (!view) return self->fail(std::move(view.error()));
      self->find_topics(*view);
    });
  });
}

bool Streams::Stream::wants(const std::string& name) const {
  return std::ranges::any_of(request_.topics(),
                             [&](const std::string& pattern) { return matches_pattern(pattern, name); });
}

void Streams::Stream::find_topics(const GroupView& core) {
  if (!find_system_topics()) return;
  for (const std::string& pattern : request_.topics()) {
    if (is_system(pattern) || has_wildcard(pattern)) continue;
    const auto topic = kTopics.get(core, scope_, pattern);
    if (!topic) return fail(topic_not_found(pattern));
    if (!add_topic(*topic)) return;
  }
  meet_topics(core);
  if (ended_) return;
  found_ = true;
  begin_system_groups();
  begin_groups();
}

// Those of its patterns that there are in a state of the core group.
void Streams::Stream::meet_topics(const GroupView& core) {
  for (const std::string& pattern : request_.topics()) {
    if (is_system(pattern) || !has_wildcard(pattern)) continue;
    const std::string prefix = pattern.substr(0, pattern.find_first_of("*>"));
    kTopics.scan(core, scope_, prefix, "", [&](std::string_view name, const TopicRow& topic) {
      return !matches_pattern(pattern, name) || add_topic(topic);
    });
    if (ended_) return;
  }
  known_ = std::max(known_, newest_number(core));
  if (reads_patterns()) owner_->env_.feed.knows(this, known_);
}

bool Streams::Stream::reads_patterns() const {
  return std::ranges::any_of(request_.topics(),
                             [](const std::string& topic) { return has_wildcard(topic) && !is_system(topic); });
}

// Without follow each group ends where it was when it began, and knows all topics up to there.
std::optional<KnownTopics> Streams::Stream::known_topics() const {
  if (request_.no_follow() || !reads_patterns()) return std::nullopt;
  return KnownTopics{scope_, known_};
}

// On this node the group is ahead of the topics: what is behind the first event of one that is not known here yet would
// be sent before it, and a cursor could not say that it is still to come.
void Streams::Stream::hold(Group& group) {
  group.behind = group.held = true;
  meet_topics_later([this] {
    for (auto& [id, held] : groups_) held.held = false;
    go_on();
  });
}

// When this node had time to hear of more.
void Streams::Stream::meet_topics_later(std::function<void()> done) {
  owner_->env_.events.post_after(kFailurePauseMs, [self = shared_from_this(), done = std::move(done)]() mutable {
    if (self->ended_) return;
    if (self->call_->finished()) return self->forget();
    self->owner_->env_.reader.read(
        kCoreGroup, {.kind = machine::ReadLevel::Kind::kSession},
        [self, done = std::move(done)](Result<GroupView> view) mutable {
          self->owner_->env_.events.post([self, done = std::move(done), view = std::move(view)] {
            if (self->ended_) return;
            if (!view) return self->fail(view.error());
            self->meet_topics(*view);
            if (self->ended_) return;
            self->begin_late_partitions();
            done();
          });
        });
  });
}

bool Streams::Stream::add_topic(const TopicRow& topic) {
  for (int number = 0; number < topic.groups_size(); ++number) {
    if (!only_partitions_.empty() && !only_partitions_.contains(number)) continue;
    const GroupId group = bus_group(topic.groups(number));
    // Without follow nothing is read that came behind the beginning of its group: a cursor would pass what others have
    // there.
    if (request_.no_follow() && groups_.contains(group) && groups_[group].begun) continue;
    const PartitionId id{topic.number(), static_cast<uint32_t>(number)};
    const auto [at, fresh] = groups_[group].partitions.try_emplace(id);
    at->second.ttl_ms = ms_of(topic.topic().message_ttl());
    if (!fresh) continue;
    at->second.topic = topic.topic().name();
    at->second.number = topic.number();
    at->second.ephemeral = topic.topic().persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL;
    groups_[group].behind = true;
    owner_->env_.feed.read(this, group, id);
    if (++partitions_ > owner_->options_.partitions_max) {
      fail(Status(Code::kExhausted, "STREAM_PARTITIONS_EXHAUSTED",
                  "the topics have more than " + std::to_string(owner_->options_.partitions_max) +
                      " partitions, as many as one stream may read; subscribe to fewer")
               .with_help("events.md#limits"));
      return false;
    }
  }
  topics_.insert(topic.number());
  return true;
}

// The states of the groups, as fresh as the caller wants.
void Streams::Stream::begin_groups() {
  std::vector<GroupId> groups;
  for (auto& [id, group] : groups_) {
    if (!std::exchange(group.asked, true)) groups.push_back(id);
  }
  beginning_ += groups.size();
  for (const GroupId id : groups) find_beginning(id, call_->read_level, &Stream::begin_group);
  if (groups.empty()) go_on();
}

// In a state as fresh as the caller wants, and not of before the cursor. One that does not reach the cursor although it
// has all that a quorum has is of another history.
void Streams::Stream::find_beginning(GroupId id, const machine::ReadLevel& level, BeginAt begin_at) {
  const bool fresh = level.kind == machine::ReadLevel::Kind::kLinearizable;
  owner_->env_.reader.read(id, level, [self = shared_from_this(), id, fresh, begin_at](Result<GroupView> view) {
    self->owner_->env_.events.post([self, id, fresh, begin_at, view = std::move(view)]() mutable {
      if (self->ended_) return;
      if (!view) return self->fail(std::move(view.error()));
      const auto since = self->since_.find(id);
      if (since != self->since_.end() && since->second.index > view->applied().value) {
        if (!fresh) return self->find_beginning(id, machine::ReadLevel::linearizable(), begin_at);
        return self->end(v1::STREAM_END_REASON_COMPACTED,
                         "the cursor is of another cluster, or of before a backup was restored; begin anew without a "
                         "cursor, or with start EARLIEST");
      }
      // What is before the end of what there is has to be known.
      const bool ahead =
          self->request_.no_follow() && self->reads_patterns() && has_newer_topic(*view, {self->scope_, self->known_});
      if (ahead) {
        return self->meet_topics_later([stream = self.get(), id, fresh, begin_at] {
          const auto& wanted = stream->call_->read_level;
          stream->find_beginning(id, fresh ? machine::ReadLevel::linearizable() : wanted, begin_at);
        });
      }
      --self->beginning_;
      (self.get()->*begin_at)(id, *view);
      if (self->beginning_ == 0) self->go_on();
    });
  });
}

// Of topics that this node has heard of after the stream had begun. They are empty, or were filled since: from their
// first event on. But behind a cursor they may have been read from already, through a node that knew them earlier.
void Streams::Stream::begin_late_partitions() {
  for (auto& [id, group] : groups_) {
    if (std::ranges::all_of(group.partitions, [](const auto& entry) { return entry.second.begun; })) continue;
    // Who is about to begin takes them along.
    if (group.asked && !group.begun) continue;
    group.asked = true;
    if (since_.contains(id) || request_.no_follow()) {
      ++beginning_;
      find_beginning(id, call_->read_level, &Stream::begin_group);
      continue;
    }
    group.begun = true;
    for (auto& [partition_id, partition] : group.partitions) partition.begun = true;
  }
}

void Streams::Stream::begin_group(GroupId id, const GroupView& view) {
  Group& group = groups_[id];
  const bool first = !std::exchange(group.begun, true);
  // Of partitions that came later nothing was read.
  group.behind = true;
  const auto since = since_.find(id);
  for (auto& [partition_id, partition] : group.partitions) {
    if (std::exchange(partition.begun, true)) continue;
    const auto row = kPartitions.get(view, scope_, partition_key(partition_id));
    if (request_.no_follow()) partition.until = row ? row->next_offset() : 0;
    if (!row) continue;
    partition.next = first_offset(view, id, partition_id);
    const LogPlace gone{row->trimmed_index(), row->trimmed_batch(), row->trimmed_place()};
    const bool lost = since != since_.end() && gone > since->second;
    if (lost) {
      return end(v1::STREAM_END_REASON_COMPACTED,
                 "events behind the cursor are no longer kept; begin anew without a cursor, or with start EARLIEST");
    }
  }
  if (!first) return;
  if (since != since_.end()) cursor_[id] = since->second;
  else if (request_.start() != v1::SUBSCRIBE_START_EARLIEST && request_.start() != v1::SUBSCRIBE_START_TIME &&
           request_.start() != v1::SUBSCRIBE_START_OFFSET) {
    cursor_[id] = {view.applied().value, UINT32_MAX, 0};
  }
}

// Where the stream begins in a partition.
uint64_t Streams::Stream::first_offset(const GroupView& view, GroupId group, PartitionId id) const {
  const BusPartitionRow row = *kPartitions.get(view, scope_, partition_key(id));
  uint64_t from = row.first_offset();
  if (request_.start() == v1::SUBSCRIBE_START_OFFSET) {
    from = std::clamp(request_.start_offset(), row.first_offset(), row.next_offset());
  } else if (request_.start() == v1::SUBSCRIBE_START_TIME) {
    const int64_t us = us_of(request_.start_time());
    from = first_offset_where(view, scope_, id, row, [us](const BusIndexRow& r) { return r.publish_us() >= us; });
  } else if (request_.start() != v1::SUBSCRIBE_START_EARLIEST && since_.empty()) {
    return row.next_offset();
  }
  const auto since = since_.find(group);
  if (since == since_.end()) return from;
  return std::max(from, offset_behind(view, scope_, id, row, since->second));
}

// --- reading --------------------------------------------------------------------------------------------------------

void Streams::Stream::go_on() {
  // A cursor knows all groups, so nothing is sent before all have begun.
  if (ended_ || fetching_ || waiting_ || paused_ || !found_ || beginning_ > 0) return;
  if (call_->finished()) return forget();
  check_end();
  if (ended_) return;
  if (blocked()) return wait_for_client();
  if (!read_on()) check_end();
}

// Begins to read what is next. False: there is nothing to be read.
bool Streams::Stream::read_on() {
  // The groups in turn, so that none waits for another.
  system_turn_ = !system_turn_;
  if (system_turn_ && read_system_group()) return true;
  auto at = groups_.upper_bound(last_group_);
  for (size_t i = 0; i < groups_.size(); ++i, ++at) {
    if (at == groups_.end()) at = groups_.begin();
    if (at->second.begun && at->second.behind && !at->second.held) {
      last_group_ = at->first;
      fetch(at->first, at->second);
      return true;
    }
  }
  return read_system_group();
}

void Streams::Stream::fetch(GroupId id, Group& group) {
  std::vector<ReadFrom> from;
  for (const auto& [partition_id, partition] : group.partitions) {
    if (!partition.begun) continue;
    const uint64_t next = std::max(partition.next, partition.read);
    if (!partition.ephemeral && next < partition.until) from.push_back({scope_, partition_id, next});
  }
  fetching_ = true;
  // What is told from now on is not in what is read, or found out by its offset.
  group.behind = false;
  owner_->env_.fetcher.fetch(id, std::move(from), owner_->options_.fetch_bytes, known_topics(),
                             [self = shared_from_this(), id](Result<Fetched> fetched) {
                               self->owner_->env_.events.post([self, id, fetched = std::move(fetched)]() mutable {
                                 self->take(id, std::move(fetched));
                               });
                             });
}

void Streams::Stream::take(GroupId id, Result<Fetched> fetched) {
  fetching_ = false;
  if (ended_) return;
  Group& group = groups_[id];
  if (fetched && fetched->ahead) {
    hold(group);
    return go_on();
  }
  const bool progress = fetched && (fetched->whole || !fetched->batches.empty());
  if (!progress) {
    if (!fetched && fetched.error().code() != Code::kUnavailable) return fail(std::move(fetched.error()));
    if (++failures_ > kFailuresMax) {
      return fail(
          Status(Code::kUnavailable, "EVENTS_UNREADABLE",
                 "stored events cannot be read on this node just now; go on from the cursor, perhaps elsewhere"));
    }
    group.behind = true;
    paused_ = true;
    owner_->env_.events.post_after(kFailurePauseMs, [self = shared_from_this()] {
      self->paused_ = false;
      self->go_on();
    });
    return;
  }
  failures_ = 0;
  if (!fetched->trimmed.empty()) {
    return end(v1::STREAM_END_REASON_COMPACTED,
               "the stream fell behind what is kept, and events were removed before they were read; begin anew");
  }
  for (const auto& [partition_id, next] : fetched->next) {
    const auto partition = group.partitions.find(partition_id);
    if (partition != group.partitions.end()) partition->second.read = std::max(partition->second.read, next);
  }
  if (!fetched->whole) group.behind = true;
  if (!blocked()) return send_fetched(id, *fetched);
  held_.emplace(id, std::move(*fetched));
  wait_for_client();
}

// What comes next is read meanwhile.
void Streams::Stream::send_fetched(GroupId id, const Fetched& fetched) {
  read_on();
  Group& group = groups_[id];
  sending_much_ = fetched.batches.size() > 1;
  for (const BatchPtr& batch : fetched.batches) {
    const auto partition = group.partitions.find(batch->id);
    if (partition == group.partitions.end()) continue;
    if (!send_batch(*batch, partition->second)) return;
  }
  sending_much_ = false;
  for (const auto& [partition_id, next] : fetched.next) {
    const auto partition = group.partitions.find(partition_id);
    if (partition != group.partitions.end()) partition->second.next = std::max(partition->second.next, next);
  }
  flush();
  check_end();
  go_on();
}

void Streams::Stream::on_batch(const BatchPtr& batch) {
  if (ended_) return;
  const auto found = groups_.find(batch->group);
  if (found == groups_.end()) return;
  Group& group = found->second;
  const auto partition = group.partitions.find(batch->id);
  if (partition == group.partitions.end()) return;
  const bool free = group.begun && !group.held && beginning_ == 0 && !waiting_ && !paused_ && !blocked();
  if (batch->ephemeral) {
    // At most once: nobody keeps it for those who cannot take it now.
    if (free && send_batch(*batch, partition->second)) flush();
    return;
  }
  const bool next =
      free && !batch->bare() && !fetching_ && !group.behind && partition->second.next == batch->row.first_offset();
  if (!next) {
    group.behind = true;
    return go_on();
  }
  if (!send_batch(*batch, partition->second)) return;
  flush();
  check_end();
}

void Streams::Stream::on_gap(GroupId id) {
  const auto found = groups_.find(id);
  if (found == groups_.end()) return;
  found->second.behind = true;
  go_on();
}

void Streams::Stream::on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) {
  if (change == TopicChange::kSet) known_ = std::max(known_, topic.number());
  if (ended_ || scope != scope_ || !wants(topic.topic().name())) return;
  if (change == TopicChange::kSet) {
    if (!add_topic(topic) || !found_) return;
    begin_late_partitions();
    return go_on();
  }
  if (!topics_.contains(topic.number())) return;
  topics_.erase(topic.number());
  for (auto& [id, group] : groups_) {
    std::erase_if(group.partitions, [&, group_id = id](const auto& entry) {
      if (entry.second.number != topic.number()) return false;
      owner_->env_.feed.unread(this, group_id, entry.first);
      --partitions_;
      return true;
    });
  }
  const bool named = std::ranges::find(request_.topics(), topic.topic().name()) != request_.topics().end();
  if (named) end(v1::STREAM_END_REASON_DELETED, "the topic '" + topic.topic().name() + "' was deleted");
}

// --- sending --------------------------------------------------------------------------------------------------------

// False: the stream has ended.
bool Streams::Stream::send_batch(const Batch& batch, Partition& partition) {
  const int64_t now_us = owner_->env_.clock.wall().us;
  const DeliveredEvents events(batch, partition.topic);
  // Events that are not kept may overtake others that are still to be read: the cursor stays where it is.
  LogPlace still;
  LogPlace& place = batch.ephemeral ? still : cursor_[batch.group];
  if (!batch.ephemeral) place = place_of(batch.row);
  const RowCursors cursors(cursor_, batch.ephemeral ? std::nullopt : std::optional(batch.group));
  for (size_t number = 0; number < batch.places.size(); ++number) {
    const uint64_t offset = batch.offset(number);
    if (!batch.ephemeral) {
      if (offset < partition.next) continue;
      if (offset >= partition.until) break;
      partition.next = offset + 1;
      place.place = static_cast<uint32_t>(offset - batch.row.first_offset());
    }
    const std::string_view event = batch.event(number);
    if (end_of(event, batch.row.publish_us(), partition.ttl_ms) <= now_us) continue;
    if (!filter_.matches(event)) continue;
    std::string& item = begin_item(event.size());
    cursors.append(item, Item::kCursorFieldNumber, place.place);
    events.append(item, Item::kEventFieldNumber, number);
    if (!end_item(event.size())) return false;
  }
  return true;
}

std::string& Streams::Stream::begin_item(size_t event_bytes) {
  const size_t bytes = event_bytes + kItemBytes;
  if (run_.bytes.size() + bytes > kRunBytes) flush();
  // Where more is at hand, room for all that goes together.
  if (run_.bytes.empty()) run_.bytes.reserve(std::max(bytes, sending_much_ ? kRunBytes : 0));
  return run_.bytes;
}

bool Streams::Stream::end_item(size_t event_bytes) {
  call::put_uint(run_.bytes, Item::kDeliveryAttemptFieldNumber, 1);
  run_.ends.push_back(static_cast<uint32_t>(run_.bytes.size()));
  run_event_bytes_ += event_bytes;
  ++sent_;
  if (request_.limit() == 0 || sent_ < static_cast<uint64_t>(request_.limit())) return true;
  end(v1::STREAM_END_REASON_LIMIT, "the number of events asked for was sent");
  return false;
}

void Streams::Stream::flush() {
  if (run_.ends.empty()) return;
  sent_at_ = owner_->env_.clock.boot();
  owner_->delivered_.add(run_.ends.size());
  owner_->delivered_bytes_.add(std::exchange(run_event_bytes_, 0));
  call_->send_run(std::exchange(run_, {}));
}

// The door tells when the client has taken a part of what waits for it; when that is, is the door's to say, so it is
// looked at now and then in any case.
void Streams::Stream::wait_for_client() {
  waiting_ = true;
  // Once: doors also tell of each queue that is empty again.
  call_->on_drain([weak = weak_from_this(), &events = owner_->env_.events]() mutable {
    if (const auto self = std::exchange(weak, {}).lock()) events.post([self] { self->look_at_client(); });
  });
  if (std::exchange(polling_, true)) return;
  owner_->env_.events.post_after(kDrainPollMs, [self = shared_from_this()] {
    self->polling_ = false;
    self->look_at_client();
  });
}

void Streams::Stream::look_at_client() {
  if (ended_ || !waiting_) return;
  if (call_->finished()) return forget();
  if (blocked()) return wait_for_client();
  waiting_ = false;
  if (!held_) return go_on();
  const auto [id, fetched] = *std::exchange(held_, std::nullopt);
  send_fetched(id, fetched);
}

void Streams::Stream::check_end() {
  if (ended_ || !request_.no_follow() || beginning_ > 0) return;
  for (const auto& [id, group] : groups_) {
    for (const auto& [partition_id, partition] : group.partitions) {
      if (partition.ephemeral || partition.next >= partition.until) continue;
      // Compacted or expired offsets at the end: everything that there was is read.
      if (group.behind || fetching_ || held_) return;
    }
  }
  for (const auto& [id, group] : system_) {
    if (!group.begun || group.after < group.until) return;
  }
  end(v1::STREAM_END_REASON_CAUGHT_UP, "all events present were sent");
}

void Streams::Stream::keep_alive(BootTime now) {
  if (call_->finished()) return forget();
  if (!ended_ && !may_go_on()) return;
  if (ended_ || now.ms_since(sent_at_) < owner_->options_.keep_alive_ms || blocked()) return;
  sent_at_ = now;
  std::string item;
  call::put_bytes(item, Item::kCursorFieldNumber, encode_cursor(cursor_));
  call_->send(std::move(item));
}

void Streams::Stream::on_stop(const Status& status) { end(v1::STREAM_END_REASON_RECONNECT, status.message(), status); }

void Streams::Stream::end(v1::StreamEndReason reason, const std::string& message, Status status) {
  if (ended_) return;
  flush();
  v1::EventDelivery last;
  last.set_cursor(encode_cursor(cursor_));
  last.mutable_end()->set_reason(reason);
  last.mutable_end()->set_message(message);
  call_->send(last.SerializeAsString());
  call_->finish(std::move(status));
  forget();
}

void Streams::Stream::fail(Status status) {
  if (ended_) return;
  flush();
  call_->finish(std::move(status));
  forget();
}

void Streams::Stream::forget() {
  if (std::exchange(ended_, true)) return;
  for (const auto& [id, group] : groups_) {
    for (const auto& [partition_id, partition] : group.partitions) owner_->env_.feed.unread(this, id, partition_id);
  }
  owner_->env_.feed.remove(this);
  owner_->streams_.erase(this);
  owner_->open_.set(static_cast<double>(owner_->streams_.size()));
}

}  // namespace uccp::events
