// Places and confirmations of a subscription, and who its members are. What is read and sent is in
// subscription_delivery.cc, confirmations in transactions in subscription_holds.cc.
#include "services/events/subscription.h"

#include <algorithm>
#include <array>

#include "base/dotted_numbers.h"
#include "services/events/bus_state.h"
#include "services/events/join.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using machine::GroupView;
using machine::ReadLevel;

constexpr int64_t kAckTimeoutDefaultMs = 30'000;
constexpr int64_t kFindAgainMs = 200;

}  // namespace

bool reads_partition(const SubscriptionRow& row, uint32_t partition) {
  return row.partitions().empty() || std::ranges::find(row.partitions(), partition) != row.partitions().end();
}

Status leader_moved() {
  return Status(Code::kUnavailable, "LEADER_MOVED", "another node serves the subscription now; connect again");
}

Subscription::Subscription(const SubscriptionEnvironment& environment, machine::Scope scope, SubscriptionRow row,
                           EventFilter filter)
    : env_(environment),
      scope_(std::move(scope)),
      row_(std::move(row)),
      filter_(std::move(filter)),
      epoch_(static_cast<uint64_t>(env_.clock.boot().us)),
      backlog_(env_.metrics.gauge("uccp_subscription_backlog", "Events that the subscription has not confirmed",
                                  {{"tenant", scope_.tenant},
                                   {"namespace", scope_.name_space},
                                   {"subscription", row_.subscription().name()}})) {}

int64_t Subscription::ack_timeout_ms() const {
  const int64_t ms = services::ms_of(row_.subscription().ack_timeout());
  return ms > 0 ? ms : kAckTimeoutDefaultMs;
}

// --- loading --------------------------------------------------------------------------------------------------------

void Subscription::load(Done done) {
  env_.feed.add(this);
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(),
                   [self = shared_from_this(), done = std::move(done)](Result<GroupView> core) mutable {
                     self->env_.events.post([self, core = std::move(core), done = std::move(done)]() mutable {
                       if (!core) return done(std::move(core.error()));
                       if (self->closed_) return done(leader_moved());
                       // A later leader of core has applied more when it begins.
                       self->term_ = core->applied().value;
                       scan_topics(*core, self->scope_, "",
                                   [&](std::string_view, const machine::Scope&, const TopicRow& topic) {
                                     if (self->wants(topic.topic().name())) self->add_topic(topic);
                                     return true;
                                   });
                       self->find_places(std::move(done));
                     });
                   });
}

bool Subscription::wants(const std::string& topic) const {
  return std::ranges::any_of(row_.subscription().topics(),
                             [&](const std::string& pattern) { return matches_pattern(pattern, topic); });
}

void Subscription::add_topic(const TopicRow& topic) {
  if (topic.topic().persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL) return;
  for (int number = 0; number < topic.groups_size(); ++number) {
    const PartitionId id{topic.number(), static_cast<uint32_t>(number)};
    if (!reads_partition(row_, id.partition)) continue;
    const auto [at, fresh] = partitions_.try_emplace(id);
    Partition& partition = at->second;
    partition.ttl_ms = services::ms_of(topic.topic().message_ttl());
    if (!fresh) continue;
    partition.group = bus_group(topic.groups(number));
    partition.topic = topic.topic().name();
    partition.topic_number = topic.number();
    env_.feed.read(this, partition.group, id);
  }
}

// Of partitions whose place is not known yet.
void Subscription::find_places(Done done) {
  std::set<GroupId> groups;
  for (const auto& [id, partition] : partitions_) {
    if (!partition.known) groups.insert(partition.group);
  }
  if (groups.empty()) return done(Status::ok());
  const auto join = Join::make(groups.size(), std::move(done));
  for (const GroupId group : groups) {
    // Taken over first: whoever served it before moves nothing any more behind what is read then.
    claim(group, [self = shared_from_this(), join, group](Status status) {
      if (!status.is_ok()) return join->arrive(std::move(status));
      self->env_.reader.read(group, ReadLevel::linearizable(), [self, join, group](Result<GroupView> view) {
        self->env_.events.post([self, join, group, view = std::move(view)]() mutable {
          if (!view) return join->arrive(std::move(view.error()));
          std::set<PartitionId> fresh;
          for (auto& [id, partition] : self->partitions_) {
            if (partition.group != group || partition.known) continue;
            self->take_place(id, partition, *view);
            fresh.insert(id);
          }
          self->take_held(fresh, *view);
          join->arrive(Status::ok());
        });
      });
    });
  }
}

// Of a topic that was made while the subscription is served: its groups may have no leader yet.
void Subscription::find_new_places() {
  find_places([self = shared_from_this()](const Status& status) {
    if (self->closed_) return;
    if (!status.is_ok()) {
      self->env_.events.post_after(kFindAgainMs, [self] {
        if (!self->closed_) self->find_new_places();
      });
    }
    self->assign();
    self->pump();
  });
}

// Notes in the group that this is who serves the subscription now.
void Subscription::claim(GroupId group, Done done) {
  internal::v1::BusCommitCommand command;
  command.set_epoch(term_);
  for (const auto& [id, partition] : partitions_) {
    if (partition.group != group || partition.known) continue;
    auto& one = *command.add_commits();
    one.set_subscription(row_.number());
    one.set_topic(id.topic);
    one.set_partition(id.partition);
  }
  machine::Envelope envelope;
  envelope.scope = scope_;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".commit";
  envelope.payload = command.SerializeAsString();
  env_.anywhere.propose(
      group, std::move(envelope), [self = shared_from_this(), done = std::move(done)](auto applied) mutable {
        internal::v1::BusCommitResult result;
        Status status = applied ? Status::ok() : std::move(applied.error());
        if (applied && result.ParseFromString(applied->response) && result.stale()) status = leader_moved();
        self->env_.events.post(
            [done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
      });
}

void Subscription::fenced() { close(v1::STREAM_END_REASON_RECONNECT, leader_moved()); }

void Subscription::take_place(const PartitionId& id, Partition& partition, const GroupView& view) {
  partition.known = true;
  const auto stored = kPartitions.get(view, scope_, partition_key(id));
  const auto position = kPositions.get(view, scope_, position_key(id, row_.number()));
  if (position && !position->unset()) {
    partition.committed = position->offset();
    partition.above.insert(position->above().begin(), position->above().end());
    for (const auto& attempts : position->attempts()) partition.attempts[attempts.offset()] = attempts.attempts();
  } else if (stored && id.topic < row_.number()) {
    // The topic was there when the subscription was made; of a later one it reads everything.
    switch (row_.start()) {
      case v1::SUBSCRIBE_START_EARLIEST: partition.committed = stored->first_offset(); break;
      case v1::SUBSCRIBE_START_TIME:
        partition.committed = first_offset_where(view, scope_, id, *stored, [this](const BusIndexRow& row) {
          return row.publish_us() >= row_.start_time_us();
        });
        break;
      case v1::SUBSCRIBE_START_OFFSET:
        partition.committed = std::clamp(row_.start_offset(), stored->first_offset(), stored->next_offset());
        break;
      default: partition.committed = stored->next_offset();
    }
    mark_dirty(id, partition);
  }
  if (stored) partition.committed = std::max(partition.committed, stored->first_offset());
  if (position) {
    partition.moves = position->moves();
    // What transactions have confirmed and no server has taken over yet.
    for (const uint64_t offset : position->settled()) confirm(id, partition, offset);
  }
  partition.next = partition.committed;
  partition.end = stored ? std::max(partition.end, stored->next_offset()) : partition.end;
  backlog_.set(static_cast<double>(backlog()));
}

uint64_t Subscription::backlog() const {
  uint64_t events = 0;
  for (const auto& [id, partition] : partitions_) {
    const uint64_t left = partition.end - std::min(partition.end, partition.committed);
    events += left - std::min<uint64_t>(left, partition.above.size());
  }
  return events;
}

// --- members --------------------------------------------------------------------------------------------------------

void Subscription::join(const MemberPtr& member) {
  member->id = ++last_member_;
  member->sent_at = env_.clock.boot();
  // Those that ended and were not missed yet have nothing to serve.
  const std::vector<MemberPtr> before = members_;
  for (const MemberPtr& other : before) {
    if (other->call->finished()) leave(other);
  }
  members_.push_back(member);
  assign();
  schedule_tick();
  pump();
}

void Subscription::leave(const MemberPtr& member) {
  const auto at = std::ranges::find(members_, member);
  if (at == members_.end()) return;
  members_.erase(at);
  for (auto& [id, partition] : partitions_) {
    if (partition.owner == member) partition.owner = nullptr;
    // What was pulled, or read to the end, is confirmed later.
    if (member->pull || member->ended) continue;
    for (auto it = partition.in_flight.begin(); it != partition.in_flight.end();) {
      if (it->second.member != member) {
        ++it;
        continue;
      }
      Item item = std::move(it->second.item);
      it = partition.in_flight.erase(it);
      give_back(id, partition, std::move(item), 0);
    }
  }
  assign();
  pump();
}

// Each member gets as many partitions as any other, give or take one; a partition stays where it is if that allows it.
void Subscription::assign() {
  const v1::SubscriptionSharing sharing = row_.subscription().sharing();
  if (members_.empty()) return;
  if (sharing == v1::SUBSCRIPTION_SHARING_EXCLUSIVE || sharing == v1::SUBSCRIPTION_SHARING_FAILOVER) {
    for (auto& [id, partition] : partitions_) partition.owner = members_.front();
    return;
  }
  std::map<uint64_t, size_t> load;
  for (const MemberPtr& member : members_) load[member->id] = 0;
  const size_t most = (partitions_.size() + members_.size() - 1) / members_.size();
  for (auto& [id, partition] : partitions_) {
    const bool stays = partition.owner && load.contains(partition.owner->id) && load[partition.owner->id] < most;
    if (stays) ++load[partition.owner->id];
    else partition.owner = nullptr;
  }
  for (auto& [id, partition] : partitions_) {
    if (partition.owner) continue;
    partition.owner =
        *std::ranges::min_element(members_, {}, [&](const MemberPtr& member) { return load[member->id]; });
    ++load[partition.owner->id];
  }
}

// --- confirmations --------------------------------------------------------------------------------------------------

std::string Subscription::ack_id(const PartitionId& id, const Item& item) const {
  return std::to_string(id.topic) + "." + std::to_string(id.partition) + "." + std::to_string(item.offset) + "." +
         std::to_string(item.attempts) + "." + std::to_string(epoch_);
}

std::optional<Subscription::AckName> Subscription::parse_ack_id(const std::string& ack_id) {
  std::array<uint64_t, 5> numbers{};
  if (!parse_dotted_numbers(ack_id, numbers) || numbers[1] > UINT32_MAX) return std::nullopt;
  return AckName{{numbers[0], static_cast<uint32_t>(numbers[1])}, numbers[2], numbers[3], numbers[4]};
}

std::optional<std::pair<PartitionId, uint64_t>> Subscription::find_delivery(const std::string& ack_id) const {
  const auto name = parse_ack_id(ack_id);
  if (!name || name->epoch != epoch_) return std::nullopt;
  const auto partition = partitions_.find(name->id);
  if (partition == partitions_.end()) return std::nullopt;
  const auto in_flight = partition->second.in_flight.find(name->offset);
  if (in_flight == partition->second.in_flight.end() || in_flight->second.item.attempts != name->attempts)
    return std::nullopt;
  return std::pair(name->id, name->offset);
}

template <typename Each>
std::vector<std::string> Subscription::take_deliveries(const std::vector<std::string>& ids, Each each) {
  std::vector<std::string> expired;
  for (const std::string& id : ids) {
    const auto found = find_delivery(id);
    if (!found) {
      expired.push_back(id);
      continue;
    }
    Partition& partition = partitions_.at(found->first);
    auto node = partition.in_flight.extract(found->second);
    --node.mapped().member->in_flight;
    each(found->first, partition, std::move(node));
  }
  return expired;
}

std::vector<std::string> Subscription::ack(const std::vector<std::string>& ids, Done done) {
  if (closed_) {
    done(leader_moved());
    return {};
  }
  std::set<GroupId> groups;
  auto expired = take_deliveries(ids, [&](PartitionId id, Partition& partition, auto delivery) {
    env_.counters.acknowledged.add();
    confirm(id, partition, delivery.key());
    groups.insert(partition.group);
  });
  pump();
  if (groups.empty()) {
    done(Status::ok());
    return expired;
  }
  const auto join = Join::make(groups.size(), std::move(done));
  for (const GroupId group : groups) {
    commits_[group].waiting.emplace_back([join](Status status) { join->arrive(std::move(status)); });
    commit(group);
  }
  return expired;
}

std::vector<std::string> Subscription::nack(const std::vector<std::string>& ids, int64_t delay_ms, bool dead_letter) {
  auto expired = take_deliveries(ids, [&](PartitionId id, Partition& partition, auto delivery) {
    failed(id, partition, std::move(delivery.mapped().item), delay_ms, "it was given back", dead_letter);
  });
  pump();
  return expired;
}

// The event will not be delivered again.
void Subscription::confirm(const PartitionId& id, Partition& partition, uint64_t offset) {
  partition.attempts.erase(offset);
  if (offset >= partition.committed) partition.above.insert(offset);
  advance(partition);
  mark_dirty(id, partition);
}

// What is not there needs no confirmation.
void Subscription::skip_to(const PartitionId& id, Partition& partition, uint64_t offset) {
  if (offset <= partition.next) return;
  if (offset > partition.committed) partition.gaps[std::max(partition.next, partition.committed)] = offset;
  partition.next = offset;
  const uint64_t before = partition.committed;
  advance(partition);
  if (partition.committed > before) mark_dirty(id, partition);
}

void Subscription::advance(Partition& partition) {
  const auto covers = [&](const auto& ordered, uint64_t first) {
    return !ordered.empty() && first <= partition.committed;
  };
  while (true) {
    if (covers(partition.above, partition.above.empty() ? 0 : *partition.above.begin())) {
      partition.committed = std::max(partition.committed, *partition.above.begin() + 1);
      partition.above.erase(partition.above.begin());
    } else if (covers(partition.gaps, partition.gaps.empty() ? 0 : partition.gaps.begin()->first)) {
      partition.committed = std::max(partition.committed, partition.gaps.begin()->second);
      partition.gaps.erase(partition.gaps.begin());
    } else {
      return;
    }
  }
}

void Subscription::mark_dirty(const PartitionId& id, const Partition& partition) {
  commits_[partition.group].dirty.insert(id);
}

// One command at a time: what is confirmed meanwhile goes with the next one.
void Subscription::commit(GroupId group) {
  Commit& commit = commits_[group];
  if (closed_ || commit.under_way || (commit.dirty.empty() && commit.waiting.empty())) return;
  commit.under_way = true;
  internal::v1::BusCommitCommand command;
  command.set_epoch(term_);
  const std::set<PartitionId> dirty = std::exchange(commit.dirty, {});
  for (const PartitionId& id : dirty) {
    const auto found = partitions_.find(id);
    if (found == partitions_.end()) continue;
    const Partition& partition = found->second;
    auto& one = *command.add_commits();
    one.set_subscription(row_.number());
    one.set_topic(id.topic);
    one.set_partition(id.partition);
    one.mutable_position()->set_offset(partition.committed);
    one.mutable_position()->set_moves(partition.moves);
    for (const uint64_t offset : partition.above) one.mutable_position()->add_above(offset);
    for (const auto& [offset, attempts] : partition.attempts) {
      auto& entry = *one.mutable_position()->add_attempts();
      entry.set_offset(offset);
      entry.set_attempts(attempts);
    }
  }
  machine::Envelope envelope;
  envelope.scope = scope_;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".commit";
  envelope.payload = command.SerializeAsString();
  auto waiting = std::make_shared<std::vector<Done>>(std::exchange(commit.waiting, {}));
  env_.anywhere.propose(group, std::move(envelope), [self = shared_from_this(), group, dirty, waiting](auto applied) {
    Status status = applied ? Status::ok() : std::move(applied.error());
    internal::v1::BusCommitResult result;
    const bool stale = applied && result.ParseFromString(applied->response) && result.stale();
    if (stale) status = leader_moved();
    self->env_.events.post([self, group, dirty, waiting, stale, status = std::move(status)] {
      if (stale) {
        for (Done& done : *waiting) done(status);
        return self->fenced();
      }
      Commit& commit = self->commits_[group];
      commit.under_way = false;
      if (!status.is_ok()) commit.dirty.insert(dirty.begin(), dirty.end());
      for (Done& done : *waiting) done(status);
      if (status.is_ok()) self->commit(group);
    });
  });
}

void Subscription::seek(const std::map<PartitionId, uint64_t>& places, Done done) {
  // Ids of deliveries before mean nothing from now on.
  ++epoch_;
  std::set<GroupId> groups;
  for (const auto& [id, offset] : places) {
    const auto found = partitions_.find(id);
    if (found == partitions_.end()) continue;
    Partition& partition = found->second;
    for (auto& [at, in_flight] : partition.in_flight) --in_flight.member->in_flight;
    partition.in_flight.clear();
    partition.held.clear();
    ++partition.moves;
    partition.ready.clear();
    partition.delayed.clear();
    partition.above.clear();
    partition.gaps.clear();
    partition.attempts.clear();
    ++partition.seeks;
    partition.committed = partition.next = offset;
    partition.behind = true;
    mark_dirty(id, partition);
    groups.insert(partition.group);
  }
  pump();
  if (groups.empty()) return done(Status::ok());
  const auto join = Join::make(groups.size(), std::move(done));
  for (const GroupId group : groups) {
    commits_[group].waiting.emplace_back([join](Status status) { join->arrive(std::move(status)); });
    commit(group);
  }
}

// --- what happens around it -----------------------------------------------------------------------------------------

std::map<PartitionId, std::pair<GroupId, std::string>> Subscription::partitions() const {
  std::map<PartitionId, std::pair<GroupId, std::string>> out;
  for (const auto& [id, partition] : partitions_) out[id] = {partition.group, partition.topic};
  return out;
}

size_t Subscription::in_flight() const {
  size_t count = 0;
  for (const auto& [id, partition] : partitions_) count += partition.in_flight.size();
  return count;
}

void Subscription::on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) {
  if (closed_ || scope != scope_ || !wants(topic.topic().name())) return;
  if (change == TopicChange::kSet) {
    add_topic(topic);
    return find_new_places();
  }
  for (auto at = partitions_.begin(); at != partitions_.end();) {
    if (at->second.topic_number != topic.number()) {
      ++at;
      continue;
    }
    for (auto& [offset, in_flight] : at->second.in_flight) --in_flight.member->in_flight;
    env_.feed.unread(this, at->second.group, at->first);
    at = partitions_.erase(at);
  }
  assign();
}

// Perhaps by one of before: then places are others, and what is in flight is nothing any more.
void Subscription::on_gap(GroupId) { fenced(); }

void Subscription::on_stop(const Status& status) { close(v1::STREAM_END_REASON_RECONNECT, status); }

void Subscription::close(v1::StreamEndReason reason, const Status& status) {
  if (std::exchange(closed_, true)) return;
  backlog_.set(0);
  for (const auto& [id, partition] : partitions_) env_.feed.unread(this, partition.group, id);
  env_.feed.remove(this);
  for (const MemberPtr& member : std::exchange(members_, {})) {
    if (member->pull) {
      member->call->finish(status);
      continue;
    }
    v1::EventDelivery last;
    last.mutable_end()->set_reason(reason);
    last.mutable_end()->set_message(status.message());
    member->call->send(last.SerializeAsString());
    member->call->finish(status.code() == Code::kUnavailable ? status : Status::ok());
  }
  for (auto& [group, commit] : commits_) {
    for (Done& done : std::exchange(commit.waiting, {})) done(status);
  }
}

}  // namespace uccp::events
