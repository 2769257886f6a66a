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

constexpr int64_t kDrainPollMs = 5;
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
    if (is_system(pattern)) continue;
    if (!has_wildcard(pattern)) {
      const auto topic = kTopics.get(core, scope_, pattern);
      if (!topic) return fail(topic_not_found(pattern));
      if (!add_topic(*topic)) return;
      continue;
    }
    const std::string prefix = pattern.substr(0, pattern.find_first_of("*>"));
    bool room = true;
    kTopics.scan(core, scope_, prefix, "", [&](std::string_view name, const TopicRow& topic) {
      if (matches_pattern(pattern, name)) room = add_topic(topic);
      return room;
    });
    if (!room) return;
  }
  found_ = true;
  begin_system_groups();
  begin_groups();
}

bool Streams::Stream::add_topic(const TopicRow& topic) {
  for (int number = 0; number < topic.groups_size(); ++number) {
    if (!only_partitions_.empty() && !only_partitions_.contains(number)) continue;
    const GroupId group = bus_group(topic.groups(number));
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
  for (const GroupId id : groups) {
    owner_->env_.reader.read(id, call_->read_level, [self = shared_from_this(), id](Result<GroupView> view) {
      self->owner_->env_.events.post([self, id, view = std::move(view)]() mutable {
        --self->beginning_;
        if (self->ended_) return;
        if (!view) return self->fail(std::move(view.error()));
        self->begin_group(id, *view);
        if (self->beginning_ == 0 && !self->ended_) self->go_on();
      });
    });
  }
  if (groups.empty()) go_on();
}

void Streams::Stream::begin_group(GroupId id, const GroupView& view) {
  Group& group = groups_[id];
  group.begun = true;
  const auto since = since_.find(id);
  for (auto& [partition_id, partition] : group.partitions) {
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
  if (ended_ || fetching_ || waiting_ || !found_ || beginning_ > 0) return;
  if (call_->finished()) return forget();
  check_end();
  if (ended_) return;
  if (blocked()) return wait_for_client();
  // The groups in turn, so that none waits for another.
  system_turn_ = !system_turn_;
  if (system_turn_ && read_system_group()) return;
  auto at = groups_.upper_bound(last_group_);
  for (size_t i = 0; i < groups_.size(); ++i, ++at) {
    if (at == groups_.end()) at = groups_.begin();
    if (at->second.begun && at->second.behind) {
      last_group_ = at->first;
      return fetch(at->first, at->second);
    }
  }
  if (read_system_group()) return;
  check_end();
}

void Streams::Stream::fetch(GroupId id, Group& group) {
  std::vector<ReadFrom> from;
  for (const auto& [partition_id, partition] : group.partitions) {
    if (!partition.ephemeral) from.push_back({scope_, partition_id, partition.next});
  }
  fetching_ = true;
  // What is told from now on is not in what is read, or found out by its offset.
  group.behind = false;
  owner_->env_.fetcher.fetch(
      id, std::move(from), owner_->options_.fetch_bytes, [self = shared_from_this(), id](Result<Fetched> fetched) {
        self->owner_->env_.events.post(
            [self, id, fetched = std::move(fetched)]() mutable { self->take(id, std::move(fetched)); });
      });
}

void Streams::Stream::take(GroupId id, Result<Fetched> fetched) {
  fetching_ = false;
  if (ended_) return;
  Group& group = groups_[id];
  const bool progress = fetched && (fetched->whole || !fetched->batches.empty());
  if (!progress) {
    if (!fetched && fetched.error().code() != Code::kUnavailable) return fail(std::move(fetched.error()));
    if (++failures_ > kFailuresMax) {
      return fail(
          Status(Code::kUnavailable, "EVENTS_UNREADABLE",
                 "stored events cannot be read on this node just now; go on from the cursor, perhaps elsewhere"));
    }
    group.behind = true;
    waiting_ = true;
    owner_->env_.events.post_after(kFailurePauseMs, [self = shared_from_this()] {
      self->waiting_ = false;
      self->go_on();
    });
    return;
  }
  failures_ = 0;
  if (!fetched->trimmed.empty()) {
    return end(v1::STREAM_END_REASON_COMPACTED,
               "the stream fell behind what is kept, and events were removed before they were read; begin anew");
  }
  for (const BatchPtr& batch : fetched->batches) {
    const auto partition = group.partitions.find(batch->id);
    if (partition == group.partitions.end()) continue;
    if (!send_batch(*batch, partition->second)) return;
  }
  for (const auto& [partition_id, next] : fetched->next) {
    const auto partition = group.partitions.find(partition_id);
    if (partition != group.partitions.end()) partition->second.next = std::max(partition->second.next, next);
  }
  if (!fetched->whole) group.behind = true;
  go_on();
}

void Streams::Stream::on_batch(const BatchPtr& batch) {
  if (ended_) return;
  const auto found = groups_.find(batch->group);
  if (found == groups_.end()) return;
  Group& group = found->second;
  const auto partition = group.partitions.find(batch->id);
  if (partition == group.partitions.end()) return;
  const bool free = group.begun && beginning_ == 0 && !waiting_ && !blocked();
  if (batch->ephemeral) {
    // At most once: nobody keeps it for those who cannot take it now.
    if (free) send_batch(*batch, partition->second);
    return;
  }
  const bool next =
      free && !batch->bare() && !fetching_ && !group.behind && partition->second.next == batch->row.first_offset();
  if (!next) {
    group.behind = true;
    return go_on();
  }
  if (send_batch(*batch, partition->second)) check_end();
}

void Streams::Stream::on_gap(GroupId id) {
  const auto found = groups_.find(id);
  if (found == groups_.end()) return;
  found->second.behind = true;
  go_on();
}

void Streams::Stream::on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) {
  if (ended_ || scope != scope_ || !wants(topic.topic().name())) return;
  if (change == TopicChange::kSet) {
    if (request_.no_follow() || !add_topic(topic) || !found_) return;
    // New partitions are empty, or were filled since: from their first event on.
    for (auto& [id, group] : groups_) {
      if (!std::exchange(group.asked, true)) group.begun = true;
    }
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
  for (size_t number = 0; number < batch.places.size(); ++number) {
    if (!batch.ephemeral) {
      if (batch.offset(number) < partition.next) continue;
      if (batch.offset(number) >= partition.until) break;
      partition.next = batch.offset(number) + 1;
    }
    if (end_of(batch.event(number), batch.row.publish_us(), partition.ttl_ms) <= now_us) continue;
    if (!filter_.matches(batch.event(number))) continue;
    if (!send_event(batch, number, partition)) return false;
  }
  return true;
}

bool Streams::Stream::send_event(const Batch& batch, size_t number, const Partition& partition) {
  LogPlace place = place_of(batch.row);
  place.place = static_cast<uint32_t>(batch.offset(number) - batch.row.first_offset());
  // Events that are not kept may overtake others that are still to be read.
  if (!batch.ephemeral) cursor_[batch.group] = place;
  std::string item;
  call::put_bytes(item, Item::kCursorFieldNumber, encode_cursor(cursor_));
  const size_t mark = call::begin_bytes(item, Item::kEventFieldNumber);
  append_event(item, batch, number, partition.topic);
  call::end_bytes(item, mark);
  return send_item(std::move(item), batch.event(number).size());
}

bool Streams::Stream::send_item(std::string item, size_t event_bytes) {
  call::put_uint(item, Item::kDeliveryAttemptFieldNumber, 1);
  ++sent_;
  sent_at_ = owner_->env_.clock.boot();
  owner_->delivered_.add();
  owner_->delivered_bytes_.add(event_bytes);
  call_->send(std::move(item));
  if (request_.limit() == 0 || sent_ < static_cast<uint64_t>(request_.limit())) return true;
  end(v1::STREAM_END_REASON_LIMIT, "the number of events asked for was sent");
  return false;
}

void Streams::Stream::wait_for_client() {
  waiting_ = true;
  owner_->env_.events.post_after(kDrainPollMs, [self = shared_from_this()] {
    self->waiting_ = false;
    if (self->ended_) return;
    if (self->call_->finished()) return self->forget();
    if (self->call_->sink->queued_bytes() > self->owner_->options_.resume_bytes) return self->wait_for_client();
    self->go_on();
  });
}

void Streams::Stream::check_end() {
  if (ended_ || !request_.no_follow() || beginning_ > 0 || fetching_) return;
  for (const auto& [id, group] : groups_) {
    for (const auto& [partition_id, partition] : group.partitions) {
      if (!partition.ephemeral && partition.next < partition.until) {
        // Compacted or expired offsets at the end: everything that there was is read.
        if (group.behind) return;
      }
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
