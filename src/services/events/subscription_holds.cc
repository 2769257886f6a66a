// Confirmations in transactions: deliveries that are nobody else's until their transaction ends.
//
// What the group says is right. A delivery is held here from before the group is asked until it is seen in the state
// that the transaction has ended there; so an answer that is lost, or a change that is not told, only takes time.
#include <map>

#include "services/events/join.h"
#include "services/events/subscription.h"
#include "services/events/transactions_state.h"

namespace uccp::events {
namespace {

using machine::GroupView;
using machine::ReadLevel;

// Between two looks at what is held, should nobody have told of an end.
constexpr int64_t kLookAgainMs = 1'000;

Status ack_expired(const std::string& id) {
  return Status(Code::kFailedPrecondition, "ACK_EXPIRED",
                "the delivery '" + id +
                    "' is not the last one of its event any more, or was confirmed; nothing was confirmed. Abort the "
                    "transaction: another one may process the event")
      .with_field("ackIds", "has expired");
}

}  // namespace

Result<Subscription::Named> Subscription::named(const std::vector<std::string>& ids, uint64_t transaction) const {
  if (closed_) return fail(leader_moved());
  Named out;
  for (const std::string& id : ids) {
    const auto name = parse_ack_id(id);
    const auto partition = name ? partitions_.find(name->id) : partitions_.end();
    if (partition == partitions_.end()) return fail(ack_expired(id));
    // A repeat names what is held already, perhaps for who served the subscription before.
    const auto held = partition->second.held.find(name->offset);
    const bool again = held != partition->second.held.end() && held->second.transaction == transaction;
    if (!again && !find_delivery(id)) return fail(ack_expired(id));
    out.fresh += again ? 0 : 1;
    out.groups.insert(static_cast<uint32_t>(partition->second.group.value - kFirstBusGroup));
  }
  return out;
}

void Subscription::hold(const std::vector<std::string>& ids, const TransactionRow& transaction, Done done) {
  if (const auto known = named(ids, transaction.number()); !known) return done(known.error());
  std::map<GroupId, std::map<PartitionId, std::set<uint64_t>>> holds;
  for (const std::string& id : ids) {
    const AckName name = *parse_ack_id(id);
    Partition& partition = partitions_.at(name.id);
    if (!partition.held.contains(name.offset)) {
      auto node = partition.in_flight.extract(name.offset);
      --node.mapped().member->in_flight;
      partition.held[name.offset] = {std::move(node.mapped().item), transaction.number(), transaction.producer_id()};
    }
    holds[partition.group][name.id].insert(name.offset);
  }
  pump();
  schedule_tick();
  const auto join = Join::make(holds.size(), std::move(done));
  for (const auto& [group, partitions] : holds) {
    internal::v1::TransactionHoldCommand command;
    command.set_number(transaction.number());
    command.set_producer_id(transaction.producer_id());
    command.set_subscription(row_.number());
    command.set_epoch(term_);
    for (const auto& [id, offsets] : partitions) {
      auto& one = *command.add_holds();
      one.set_topic(id.topic);
      one.set_partition(id.partition);
      one.mutable_offsets()->Assign(offsets.begin(), offsets.end());
    }
    propose_hold(group, std::move(command), [join](Status status) { join->arrive(std::move(status)); });
  }
}

void Subscription::propose_hold(GroupId group, internal::v1::TransactionHoldCommand command, Done done) {
  machine::Envelope envelope;
  envelope.scope = scope_;
  envelope.principal = "system";
  envelope.command = std::string(kTransactionsDomain) + ".hold";
  envelope.payload = command.SerializeAsString();
  env_.anywhere.propose(
      group, std::move(envelope),
      [self = shared_from_this(), group, id = transaction_id(command.number()),
       done = std::move(done)](Result<machine::Applied> applied) mutable {
        self->env_.events.post([self, group, id, done = std::move(done), applied = std::move(applied)]() mutable {
          if (!applied) return done(std::move(applied.error()));
          internal::v1::TransactionHoldResult result;
          if (!result.ParseFromString(applied->response)) {
            return done(
                Status(Code::kInternal, "HOLD_ANSWER", "a bus group answered what is no TransactionHoldResult"));
          }
          if (result.ended()) {
            self->look_at_held(group);
            return done(Status(Code::kFailedPrecondition, "TRANSACTION_ENDED",
                               "the transaction '" + id +
                                   "' ended while the confirmations were on their way; nothing "
                                   "was confirmed"));
          }
          if (!result.stale()) return done(Status::ok());
          done(leader_moved());
          self->fenced();
        });
      });
}

// What transactions hold of partitions whose place was just looked up.
void Subscription::take_held(const std::set<PartitionId>& fresh, const GroupView& view) {
  if (fresh.empty()) return;
  scan_held(view, scope_, row_.number(), [&](const Held& held) {
    const auto at = partitions_.find(held.id);
    if (at == partitions_.end() || !fresh.contains(held.id)) return;
    for (const uint64_t offset : held.row.offsets()) {
      if (offset < at->second.committed || at->second.above.contains(offset)) continue;
      at->second.held[offset] = {std::nullopt, held.number, held.row.producer_id()};
    }
  });
  schedule_tick();
}

void Subscription::look_at_all_held(BootTime now) {
  if (now.ms_since(held_looked_at_) < kLookAgainMs) return;
  held_looked_at_ = now;
  std::set<GroupId> groups;
  for (const auto& [id, partition] : partitions_) {
    if (!partition.held.empty()) groups.insert(partition.group);
  }
  for (const GroupId group : groups) look_at_held(group);
}

// In the state of this node, which may be behind: then it says so, and is looked at again.
void Subscription::look_at_held(GroupId group) {
  env_.reader.read(group, {.kind = ReadLevel::Kind::kSession},
                   [self = shared_from_this(), group](Result<GroupView> view) {
                     if (!view) return;
                     self->env_.events.post([self, group, view = std::move(*view)] { self->settle_held(group, view); });
                   });
}

void Subscription::settle_held(GroupId group, const GroupView& view) {
  if (closed_) return;
  bool confirmed_any = false;
  for (auto& [id, partition] : partitions_) {
    if (partition.group != group || partition.held.empty()) continue;
    const auto position = kPositions.get(view, scope_, position_key(id, row_.number()));
    // A state from before a seek knows nothing of what is held now.
    if (!position || position->moves() < partition.moves) continue;
    const std::set<uint64_t> settled(position->settled().begin(), position->settled().end());
    std::vector<uint64_t> confirmed, back;
    for (const auto& [offset, held] : partition.held) {
      if (settled.contains(offset)) {
        confirmed.push_back(offset);
        continue;
      }
      const auto guard = kGuards.get(view, scope_, held.producer);
      const bool ended =
          guard && (guard->number() > held.transaction || (guard->number() == held.transaction && guard->ended()));
      // Batches are settled before what is held is.
      const bool waits = kHeld.contains(view, scope_, held_key(held.transaction, row_.number(), id));
      if (ended && !waits) back.push_back(offset);
    }
    for (const uint64_t offset : confirmed) {
      partition.held.erase(offset);
      env_.counters.acknowledged.add();
      confirm(id, partition, offset);
      confirmed_any = true;
    }
    for (const uint64_t offset : back) release(id, partition, offset);
  }
  if (confirmed_any) commit(group);
  pump();
}

// Its transaction was aborted. What was not read since the subscription was loaded comes when it is.
void Subscription::release(const PartitionId& id, Partition& partition, uint64_t offset) {
  auto node = partition.held.extract(offset);
  if (!node.mapped().item) return;
  failed(id, partition, std::move(*node.mapped().item), 0, "its transaction was aborted", false);
}

}  // namespace uccp::events
