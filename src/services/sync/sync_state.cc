#include "services/sync/sync_state.h"

#include <algorithm>
#include <vector>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"

namespace uccp::sync {
namespace {

using internal::v1::ArriveResult;
using internal::v1::BarrierParticipant;
using internal::v1::BarrierPast;
using internal::v1::BarrierRow;
using internal::v1::LatchRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::LeaseId;
using services::parse;
using services::set_wall;

// First byte of a lease's key.
constexpr uint8_t kParticipantLease = 1;  // then the barrier and the participant
constexpr uint8_t kMemoryLease = 2;       // then the barrier
constexpr uint8_t kLatchLease = 3;        // then the latch

std::string participant_key(std::string_view barrier, std::string_view participant) {
  return ByteWriter().key_part(barrier).raw(participant).take();
}
std::string arrival_key(std::string_view barrier, uint64_t order) {
  return ByteWriter().key_part(barrier).u64(order).take();
}

Status count_names(ApplyContext& c, int change) {
  const auto stored = kCounts.get(c.state(), c.scope(), "");
  const uint64_t names = stored ? ByteReader(*stored).u64() : 0;
  if (change > 0 && names >= kNamesMax) {
    return Status(Code::kExhausted, "SYNC_NAMES_EXHAUSTED",
                  std::to_string(kNamesMax) + " barriers and latches are in this namespace");
  }
  kCounts.put(c.state(), c.scope(), "", ByteWriter().u64(names + static_cast<uint64_t>(change)).take());
  return Status::ok();
}

// One barrier while a command changes it.
class Barrier {
 public:
  Barrier(ApplyContext& context, const std::string& name) : c_(context) {
    if (auto row = kBarriers.get(c_.state(), c_.scope(), name)) {
      row_ = std::move(*row);
      exists_ = true;
    } else {
      row_.set_name(name);
    }
  }
  BarrierRow& row() { return row_; }
  bool exists() const { return exists_; }

  BarrierParticipant add(const std::string& who, int64_t ttl_ms) {
    BarrierParticipant p;
    p.set_participant(who);
    p.set_generation(row_.generation());
    p.set_arrival(row_.arrivals());
    row_.set_arrivals(row_.arrivals() + 1);
    p.set_lease(
        c_.create_lease(kDomain, ByteWriter().u8(kParticipantLease).key_part(row_.name()).raw(who).take(), ttl_ms));
    kParticipants.put(c_.state(), c_.scope(), participant_key(row_.name(), who), p);
    kArrivals.put(c_.state(), c_.scope(), arrival_key(row_.name(), p.arrival()), who);
    row_.set_arrived(row_.arrived() + 1);
    return p;
  }
  void remove(const BarrierParticipant& p, bool lease_is_over) {
    kParticipants.erase(c_.state(), c_.scope(), participant_key(row_.name(), p.participant()));
    kArrivals.erase(c_.state(), c_.scope(), arrival_key(row_.name(), p.arrival()));
    if (!lease_is_over) c_.delete_lease(p.lease());
    row_.set_arrived(row_.arrived() - 1);
  }
  // Ends the generation. `over`: the lease that ended already.
  BarrierPast end(bool opened, LeaseId over) {
    BarrierPast past;
    past.set_generation(row_.generation());
    past.set_opened(opened);
    past.set_parties(row_.parties());
    set_wall(past.mutable_time(), c_.envelope().wall);
    std::vector<std::string> all;
    scan_participants(c_.state(), c_.scope(), row_, [&](std::string_view who) {
      all.emplace_back(who);
      return true;
    });
    for (const std::string& who : all) {
      const auto p = find_participant(c_.state(), c_.scope(), row_.name(), who);
      if (p) remove(*p, p->lease() == over);
    }
    *row_.add_past() = past;
    for (int i = row_.past_size() - 1; i > 0; --i) row_.mutable_past()->SwapElements(i, i - 1);
    while (row_.past_size() > kPastMax) row_.mutable_past()->RemoveLast();
    row_.set_generation(row_.generation() + 1);
    row_.set_arrived(0);
    row_.set_first_arrival(row_.arrivals());
    c_.emit(kTopic, row_.name(), static_cast<uint8_t>(opened ? ChangeKind::kOpened : ChangeKind::kBroken),
            machine::stable_bytes(past));
    return past;
  }
  Status store() {
    if (!exists_) {
      UCCP_RETURN_IF_ERROR(count_names(c_, 1));
      remember_for(kForgetAfterMs);
    }
    row_.set_used_ms(c_.now_ms());
    kBarriers.put(c_.state(), c_.scope(), row_.name(), row_);
    return Status::ok();
  }
  void forget() {
    if (!exists_) return;
    const int64_t idle_ms = c_.now_ms() - row_.used_ms();
    if (row_.arrived() > 0) return remember_for(kForgetAfterMs);
    if (idle_ms < kForgetAfterMs) return remember_for(kForgetAfterMs - idle_ms);
    kBarriers.erase(c_.state(), c_.scope(), row_.name());
    UCCP_CHECK(count_names(c_, -1).is_ok(), "fewer names are always possible");
  }

 private:
  void remember_for(int64_t ms) { c_.create_lease(kDomain, ByteWriter().u8(kMemoryLease).raw(row_.name()).take(), ms); }

  ApplyContext& c_;
  BarrierRow row_;
  bool exists_ = false;
};

}  // namespace

std::optional<BarrierParticipant> find_participant(const machine::KeyReader& state, const machine::Scope& scope,
                                                   std::string_view barrier, std::string_view participant) {
  return kParticipants.get(state, scope, participant_key(barrier, participant));
}

void scan_participants(const machine::KeyReader& state, const machine::Scope& scope, const BarrierRow& row,
                       const std::function<bool(std::string_view)>& visit) {
  // Not over the marks of all who came to earlier generations.
  kArrivals.scan(state, scope, ByteWriter().key_part(row.name()).take(), arrival_key(row.name(), row.first_arrival()),
                 [&](std::string_view, std::string_view who) { return visit(who); });
}

std::optional<BarrierPast> find_past(const BarrierRow& row, uint64_t generation) {
  for (const BarrierPast& past : row.past()) {
    if (past.generation() == generation) return past;
  }
  return std::nullopt;
}

Status barrier_not_found(const std::string& name) {
  return Status(Code::kNotFound, "BARRIER_NOT_FOUND",
                "nobody waits at the barrier " + name + ", and it did not open within a day")
      .with_resource("barrier", name);
}

Status latch_not_found(const std::string& name) {
  return Status(Code::kNotFound, "LATCH_NOT_FOUND",
                "there is no latch " + name + ": it was not made, was deleted, or its ttl ended")
      .with_resource("latch", name);
}

std::map<std::string, machine::ApplyFunction, std::less<>> SyncState::commands() {
  return {{"arrive", arrive},         {"withdraw", withdraw},        {"reset", reset}, {"create_latch", create_latch},
          {"count_down", count_down}, {"delete_latch", delete_latch}};
}

ApplyResult SyncState::arrive(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::ArriveCommand>(payload);
  Barrier barrier(c, command.name());
  BarrierRow& row = barrier.row();
  if (row.arrived() > 0 && row.parties() != command.parties()) {
    return fail(Code::kFailedPrecondition, "PARTIES_MISMATCH",
                "the barrier " + command.name() + " opens for " + std::to_string(row.parties()) + " parties, not for " +
                    std::to_string(command.parties()) + ": some wait at it already");
  }
  row.set_parties(command.parties());
  ArriveResult result;
  result.set_generation(row.generation());
  auto p = find_participant(c.state(), c.scope(), command.name(), command.participant());
  if (p) {
    c.touch_lease(p->lease(), command.waiter_ttl_ms());
    int32_t place = 0;
    scan_participants(c.state(), c.scope(), row, [&](std::string_view who) {
      if (who == command.participant()) return false;
      place += 1;
      return true;
    });
    result.set_arrival_index(place);
  } else {
    p = barrier.add(command.participant(), command.waiter_ttl_ms());
    result.set_arrival_index(row.arrived() - 1);
  }
  if (row.arrived() >= row.parties()) *result.mutable_past() = barrier.end(true, 0);
  else result.set_lease(p->lease());
  UCCP_RETURN_IF_ERROR(barrier.store());
  *result.mutable_row() = row;
  return machine::stable_bytes(result);
}

ApplyResult SyncState::withdraw(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::WithdrawCommand>(payload);
  Barrier barrier(c, command.name());
  ArriveResult result;
  // It may have opened a moment ago: then that is the answer.
  if (const auto past = find_past(barrier.row(), command.generation())) *result.mutable_past() = *past;
  const auto p = find_participant(c.state(), c.scope(), command.name(), command.participant());
  if (p && p->generation() == command.generation()) {
    barrier.remove(*p, false);
    UCCP_RETURN_IF_ERROR(barrier.store());
  }
  *result.mutable_row() = barrier.row();
  return machine::stable_bytes(result);
}

ApplyResult SyncState::reset(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::ResetCommand>(payload);
  Barrier barrier(c, command.name());
  if (!barrier.exists()) return fail(barrier_not_found(command.name()));
  if (command.has_generation() && command.generation() != barrier.row().generation()) {
    return fail(Code::kConflict, "GENERATION_PASSED",
                "the barrier " + command.name() + " is in generation " + std::to_string(barrier.row().generation()));
  }
  barrier.end(false, 0);
  UCCP_RETURN_IF_ERROR(barrier.store());
  return machine::stable_bytes(barrier.row());
}

ApplyResult SyncState::create_latch(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::LatchCommand>(payload);
  if (kLatches.contains(c.state(), c.scope(), command.name())) {
    return fail(Status(Code::kAlreadyExists, "LATCH_EXISTS", "there is a latch " + command.name() + " already")
                    .with_resource("latch", command.name()));
  }
  UCCP_RETURN_IF_ERROR(count_names(c, 1));
  LatchRow row;
  row.set_name(command.name());
  row.set_count(command.count());
  row.set_remaining(command.count());
  row.set_ttl_ms(command.ttl_ms());
  row.set_lease(c.create_lease(kDomain, ByteWriter().u8(kLatchLease).raw(command.name()).take(), command.ttl_ms()));
  set_wall(row.mutable_create_time(), c.envelope().wall);
  kLatches.put(c.state(), c.scope(), command.name(), row);
  return machine::stable_bytes(row);
}

ApplyResult SyncState::count_down(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::LatchCommand>(payload);
  auto row = kLatches.get(c.state(), c.scope(), command.name());
  if (!row) return fail(latch_not_found(command.name()));
  if (row->remaining() == 0) return machine::stable_bytes(*row);
  row->set_remaining(std::max(0, row->remaining() - command.count()));
  if (row->remaining() == 0) {
    set_wall(row->mutable_open_time(), c.envelope().wall);
    c.emit(kTopic, command.name(), static_cast<uint8_t>(ChangeKind::kLatchOpened), machine::stable_bytes(*row));
  }
  kLatches.put(c.state(), c.scope(), command.name(), *row);
  return machine::stable_bytes(*row);
}

namespace {

void remove_latch(ApplyContext& c, const LatchRow& row) {
  kLatches.erase(c.state(), c.scope(), row.name());
  UCCP_CHECK(count_names(c, -1).is_ok(), "fewer names are always possible");
  c.emit(kTopic, row.name(), static_cast<uint8_t>(ChangeKind::kLatchDeleted), machine::stable_bytes(row));
}

}  // namespace

ApplyResult SyncState::delete_latch(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::LatchCommand>(payload);
  const auto row = kLatches.get(c.state(), c.scope(), command.name());
  if (!row) return fail(latch_not_found(command.name()));
  c.delete_lease(row->lease());
  remove_latch(c, *row);
  return machine::stable_bytes(*row);
}

void SyncState::on_lease_expired(ApplyContext& c, LeaseId lease, std::string_view key) {
  ByteReader in(key);
  const uint8_t what = in.u8();
  if (what == kLatchLease) {
    const auto row = kLatches.get(c.state(), c.scope(), in.rest());
    if (row && row->lease() == lease) remove_latch(c, *row);
    return;
  }
  if (what == kMemoryLease) return Barrier(c, std::string(in.rest())).forget();
  Barrier barrier(c, in.key_part());
  const auto p = find_participant(c.state(), c.scope(), barrier.row().name(), in.rest());
  if (!p || p->lease() != lease) return;
  // Who waits would wait for somebody who never comes again: all are told.
  barrier.end(false, lease);
  UCCP_CHECK(barrier.store().is_ok(), "the barrier exists");
}

}  // namespace uccp::sync
