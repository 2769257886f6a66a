// What a subscription reads and sends: buffers, deliveries, deadlines, dead letters.
#include <algorithm>

#include "call/wire.h"
#include "services/events/bus_state.h"
#include "services/events/publisher.h"
#include "services/events/subscription.h"

namespace uccp::events {
namespace {

using EventFields = v1::Event;

}  // namespace

// --- reading --------------------------------------------------------------------------------------------------------

void Subscription::on_batch(const BatchPtr& batch) {
  const auto found = partitions_.find(batch->id);
  if (closed_ || batch->ephemeral || found == partitions_.end()) return;
  Partition& partition = found->second;
  partition.end = std::max(partition.end, batch->next_offset());
  const bool next = !batch->bare() && partition.known && !partition.behind && !partition.fetching &&
                    partition.next == batch->row.first_offset() &&
                    partition.ready.size() < env_.options.buffered_events;
  if (next) add_items(batch->id, partition, batch);
  else partition.behind = true;
  // What comes together is sent together.
  if (std::exchange(pump_scheduled_, true)) return;
  env_.events.post([self = shared_from_this()] {
    self->pump_scheduled_ = false;
    self->pump();
  });
}

// Events that nobody wants count as confirmed.
void Subscription::add_items(const PartitionId& id, Partition& partition, const BatchPtr& batch) {
  const int64_t now_us = env_.clock.wall().us;
  for (size_t number = 0; number < batch->places.size(); ++number) {
    const uint64_t offset = batch->offset(number);
    if (offset < partition.next) continue;
    skip_to(id, partition, offset);
    partition.next = offset + 1;
    if (offset < partition.committed || partition.above.contains(offset)) continue;
    if (const auto held = partition.held.find(offset); held != partition.held.end()) {
      const auto before = partition.attempts.find(offset);
      held->second.item = {batch, number, offset, before == partition.attempts.end() ? 1 : before->second + 1};
      continue;
    }
    const std::string_view event = batch->event(number);
    if (end_of(event, batch->row.publish_us(), partition.ttl_ms) <= now_us || !filter_.matches(event)) {
      confirm(id, partition, offset);
      continue;
    }
    const auto attempts = partition.attempts.find(offset);
    partition.ready.push_back({batch, number, offset, attempts == partition.attempts.end() ? 0 : attempts->second});
  }
  skip_to(id, partition, batch->next_offset());
}

void Subscription::fetch(GroupId group) {
  std::vector<ReadFrom> from;
  std::map<PartitionId, uint64_t> seeks;
  for (auto& [id, partition] : partitions_) {
    const bool wanted = partition.group == group && partition.known && partition.behind && !partition.fetching &&
                        partition.ready.size() < env_.options.buffered_events;
    if (!wanted) continue;
    partition.fetching = true;
    partition.behind = false;
    from.push_back({scope_, id, partition.next});
    seeks[id] = partition.seeks;
  }
  if (from.empty()) return;
  env_.fetcher.fetch(group, from, env_.options.fetch_bytes, [self = shared_from_this(), seeks](auto fetched) {
    self->env_.events.post([self, seeks, fetched = std::move(fetched)]() mutable {
      for (const auto& [id, number] : seeks) {
        const auto at = self->partitions_.find(id);
        if (at == self->partitions_.end()) continue;
        at->second.fetching = false;
        if (!fetched || !fetched->whole) at->second.behind = true;
        // A seek moved it meanwhile: what was read is not what comes next.
        if (!fetched || at->second.seeks == number) continue;
        fetched->next.erase(id);
        std::erase(fetched->trimmed, id);
        std::erase_if(fetched->batches, [&id](const BatchPtr& batch) { return batch->id == id; });
      }
      self->take(std::move(fetched));
    });
  });
}

void Subscription::take(Result<Fetched> fetched) {
  // What cannot be read just now is tried again with the next tick.
  if (closed_ || !fetched) return;
  for (const PartitionId& id : fetched->trimmed) {
    // Retention took what was not read yet.
    const auto at = partitions_.find(id);
    if (at == partitions_.end()) continue;
    Partition& partition = at->second;
    const uint64_t kept = fetched->next[id];
    if (partition.committed < kept) {
      env_.counters.dropped.add(kept - partition.committed);
      partition.committed = kept;
      partition.above.erase(partition.above.begin(), partition.above.lower_bound(kept));
      mark_dirty(id, partition);
    }
  }
  for (const BatchPtr& batch : fetched->batches) {
    const auto at = partitions_.find(batch->id);
    if (at == partitions_.end() || batch->next_offset() <= at->second.next) continue;
    at->second.end = std::max(at->second.end, batch->next_offset());
    add_items(batch->id, at->second, batch);
  }
  for (const auto& [id, next] : fetched->next) {
    const auto at = partitions_.find(id);
    if (at != partitions_.end()) skip_to(id, at->second, next);
  }
  pump();
}

// --- sending --------------------------------------------------------------------------------------------------------

MemberPtr Subscription::target(const Partition& partition) {
  const auto has_room = [this](const Member& member) {
    return member.in_flight < member.in_flight_max && !member.call->finished() &&
           (member.limit == 0 || member.sent < member.limit) &&
           member.call->sink->queued_bytes() <= env_.options.queue_bytes_max;
  };
  if (row_.subscription().sharing() == v1::SUBSCRIPTION_SHARING_ANY) {
    for (size_t i = 0; i < members_.size(); ++i) {
      const MemberPtr& member = members_[turn_++ % members_.size()];
      if (has_room(*member)) return member;
    }
    return nullptr;
  }
  if (!partition.owner || !has_room(*partition.owner)) return nullptr;
  // The member before must be through with it, so that order by key holds.
  for (const auto& [offset, in_flight] : partition.in_flight) {
    if (in_flight.member != partition.owner) return nullptr;
  }
  return partition.owner;
}

void Subscription::pump() {
  if (closed_) return;
  backlog_.set(static_cast<double>(backlog()));
  bool more = true;
  while (more && !members_.empty()) {
    more = false;
    // One event of each partition in turn.
    for (auto& [id, partition] : partitions_) more |= deliver(id, partition);
  }
  finish_pulls();
  finish_caught_up();
  std::set<GroupId> groups;
  for (const auto& [id, partition] : partitions_) {
    if (partition.behind && partition.known) groups.insert(partition.group);
  }
  if (members_.empty()) return;
  for (const GroupId group : groups) fetch(group);
}

bool Subscription::deliver(const PartitionId& id, Partition& partition) {
  if (partition.ready.empty()) return false;
  if (partition.ready.front().offset >= partition.committed + env_.options.window_events) return false;
  const MemberPtr member = target(partition);
  if (!member) return false;
  Item item = std::move(partition.ready.front());
  partition.ready.pop_front();
  ++item.attempts;
  ++member->sent;
  send(id, partition, item, *member);
  if (!member->manual) {
    confirm(id, partition, item.offset);
  } else {
    ++member->in_flight;
    const uint64_t offset = item.offset;
    partition.in_flight[offset] = {std::move(item), member, env_.clock.boot().plus_ms(ack_timeout_ms())};
  }
  if (member->limit > 0 && member->sent >= member->limit && !member->pull) {
    end_stream(member, v1::STREAM_END_REASON_LIMIT, "the number of events asked for was sent");
  }
  return true;
}

void Subscription::send(const PartitionId& id, const Partition& partition, const Item& item, Member& member) {
  std::string out;
  DeliveredEvents(*item.batch, partition.topic).append(out, v1::EventDelivery::kEventFieldNumber, item.number);
  if (member.manual) call::put_bytes(out, v1::EventDelivery::kAckIdFieldNumber, ack_id(id, item));
  call::put_uint(out, v1::EventDelivery::kDeliveryAttemptFieldNumber, item.attempts);
  env_.counters.delivered.add();
  if (item.attempts > 1) env_.counters.redelivered.add();
  member.sent_at = env_.clock.boot();
  if (member.pull) member.pulled.add_deliveries()->ParseFromString(out);
  else member.call->send(std::move(out));
}

// A pull that has something is answered once nothing more is at hand for it.
void Subscription::finish_pulls() {
  const std::vector<MemberPtr> all = members_;
  for (const MemberPtr& member : all) {
    if (member->pull && member->pulled.deliveries_size() > 0) reply_pull(member);
  }
}

void Subscription::reply_pull(const MemberPtr& member) {
  member->call->reply(member->pulled.SerializeAsString());
  leave(member);
}

void Subscription::end_stream(const MemberPtr& member, v1::StreamEndReason reason, const std::string& message) {
  member->ended = true;
  v1::EventDelivery last;
  last.mutable_end()->set_reason(reason);
  last.mutable_end()->set_message(message);
  member->call->send(last.SerializeAsString());
  member->call->finish(Status::ok());
}

void Subscription::finish_caught_up() {
  for (const MemberPtr& member : members_) {
    if (member->follow || member->call->finished() || !caught_up(member)) continue;
    end_stream(member, v1::STREAM_END_REASON_CAUGHT_UP, "all events present were sent");
  }
}

bool Subscription::caught_up(const MemberPtr& member) const {
  const bool any = row_.subscription().sharing() == v1::SUBSCRIPTION_SHARING_ANY;
  return std::ranges::all_of(member->until, [&](const auto& bound) {
    const auto at = partitions_.find(bound.first);
    if (at == partitions_.end() || (!any && at->second.owner != member)) return true;
    const Partition& partition = at->second;
    const auto due = [&](const Item& item) { return item.offset < bound.second; };
    if (std::max(partition.next, partition.committed) < bound.second) return false;
    if (std::ranges::any_of(partition.ready, due)) return false;
    // What others have in flight or gave back comes to this one when it is not confirmed.
    return std::ranges::none_of(partition.delayed, [&](const auto& entry) { return due(entry.second); }) &&
           std::ranges::none_of(partition.in_flight, [&](const auto& entry) {
             return due(entry.second.item) && entry.second.member != member;
           });
  });
}

// --- what was not confirmed -----------------------------------------------------------------------------------------

void Subscription::give_back(const PartitionId&, Partition& partition, Item item, int64_t delay_ms) {
  if (delay_ms > 0) {
    partition.delayed.emplace(env_.clock.boot().plus_ms(delay_ms), std::move(item));
    return schedule_tick();
  }
  const auto at = std::ranges::upper_bound(partition.ready, item.offset, {}, &Item::offset);
  partition.ready.insert(at, std::move(item));
}

// A delivery that did not succeed: again, or to the dead letters.
void Subscription::failed(const PartitionId& id, Partition& partition, Item item, int64_t delay_ms,
                          const std::string& reason, bool dead_letter) {
  const auto most = static_cast<uint32_t>(row_.subscription().deliveries_max());
  if (dead_letter || (most > 0 && item.attempts >= most)) return bury(id, std::move(item), reason);
  partition.attempts[item.offset] = item.attempts;
  mark_dirty(id, partition);
  give_back(id, partition, std::move(item), delay_ms);
}

// To the dead-letter topic. The event counts as confirmed once it is stored there; its id makes that happen once.
void Subscription::bury(const PartitionId& id, Item item, const std::string& reason) {
  const std::string& topic = row_.subscription().dead_letter_topic();
  const auto settle = [self = shared_from_this(), id](Item settled, bool stored) {
    const auto at = self->partitions_.find(id);
    if (self->closed_ || at == self->partitions_.end()) return;
    if (!stored) return self->give_back(id, at->second, std::move(settled), self->env_.options.dead_letter_retry_ms);
    self->confirm(id, at->second, settled.offset);
    self->commit(at->second.group);
    self->pump();
  };
  if (topic.empty()) {
    env_.counters.dropped.add();
    return settle(std::move(item), true);
  }
  const auto from = partitions_.find(id);
  std::string event(item.batch->event(item.number));
  EventFields fields;
  if (fields.ParseFromString(event) && fields.id().empty()) {
    call::put_bytes(event, EventFields::kIdFieldNumber, default_event_id(id.topic, id.partition, item.offset));
  }
  call::put_bytes(event, EventFields::kDeadLetterReasonFieldNumber, reason);
  call::put_uint(event, EventFields::kDeadLetterAttemptsFieldNumber, item.attempts);
  call::put_bytes(event, EventFields::kDeadLetterSourceFieldNumber,
                  from == partitions_.end() ? "" : from->second.topic);
  env_.topics.find_fresh(scope_, topic,
                         [self = shared_from_this(), settle, item = std::move(item), event = std::move(event),
                          key = fields.key()](Result<TopicRow> row) mutable {
                           const auto back = [self, settle](Item settled, bool stored) {
                             self->env_.events.post([settle, settled = std::move(settled), stored]() mutable {
                               settle(std::move(settled), stored);
                             });
                           };
                           if (!row) return back(std::move(item), false);
                           internal::v1::BusBatch batch;
                           batch.set_topic(row->number());
                           batch.set_partition(partition_of(key, static_cast<uint32_t>(row->groups_size())));
                           batch.set_principal(std::string(item.batch->content->principal()));
                           *batch.add_events() = std::move(event);
                           const GroupId group = bus_group(row->groups(static_cast<int>(batch.partition())));
                           std::vector<internal::v1::BusBatch> batches;
                           batches.push_back(std::move(batch));
                           self->env_.gatherer.append(group, self->scope_, std::move(batches), std::nullopt,
                                                      [self, back, item = std::move(item)](auto results) mutable {
                                                        const bool stored =
                                                            results && !results->empty() &&
                                                            results->front().refusal() ==
                                                                internal::v1::BusBatchResult::REFUSAL_UNSPECIFIED;
                                                        if (stored) self->env_.counters.dead_lettered.add();
                                                        back(std::move(item), stored);
                                                      });
                         });
}

void Subscription::schedule_tick() {
  if (closed_ || std::exchange(tick_scheduled_, true)) return;
  env_.events.post_after(env_.options.tick_ms, [self = shared_from_this()] {
    self->tick_scheduled_ = false;
    self->tick();
  });
}

// Deadlines, delays, members that went away, commits that failed.
void Subscription::tick() {
  if (closed_) return;
  const BootTime now = env_.clock.boot();
  const std::vector<MemberPtr> all = members_;
  for (const MemberPtr& member : all) {
    if (member->call->finished()) {
      leave(member);
    } else if (!member->pull && now.ms_since(member->sent_at) >= env_.options.keep_alive_ms) {
      member->sent_at = now;
      member->call->send(std::string());
    }
  }
  bool waiting = !members_.empty();
  for (auto& [id, partition] : partitions_) {
    while (!partition.delayed.empty() && partition.delayed.begin()->first <= now) {
      auto node = partition.delayed.extract(partition.delayed.begin());
      give_back(id, partition, std::move(node.mapped()), 0);
    }
    std::vector<uint64_t> late;
    for (const auto& [offset, in_flight] : partition.in_flight) {
      if (in_flight.deadline <= now) late.push_back(offset);
    }
    for (const uint64_t offset : late) {
      auto node = partition.in_flight.extract(offset);
      --node.mapped().member->in_flight;
      failed(id, partition, std::move(node.mapped().item), 0, "it was not confirmed in time", false);
    }
    waiting |= !partition.delayed.empty() || !partition.in_flight.empty() || !partition.held.empty();
  }
  look_at_all_held(now);
  for (auto& [group, pending] : commits_) commit(group);
  pump();
  if (waiting) schedule_tick();
}

}  // namespace uccp::events
