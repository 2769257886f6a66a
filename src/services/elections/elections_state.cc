#include "services/elections/elections_state.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "base/hash.h"
#include "machine/planted.h"
#include "services/message_types.h"

namespace uccp::elections {
namespace {

using internal::v1::CandidateCommand;
using internal::v1::ElectionCandidate;
using internal::v1::ElectionResult;
using internal::v1::ElectionRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::LeaseId;
using services::parse;
using services::set_wall;

template <typename Message>
std::string serialize(const Message& message) {
  return machine::Table<Message>::serialize(message);
}

uint64_t count_of(const machine::KeyReader& state, const machine::Scope& scope, std::string_view what) {
  const auto stored = kCounts.get(state, scope, what);
  return stored ? ByteReader(*stored).u64() : 0;
}

// One group while a command changes it.
class Group {
 public:
  Group(ApplyContext& context, const std::string& name) : c_(context) {
    if (auto row = kGroups.get(c_.state(), c_.scope(), name)) {
      row_ = std::move(*row);
      exists_ = true;
    } else {
      row_.set_group(name);
      row_.set_strategy(v1::ELECTION_STRATEGY_FIRST_COME);
      set_wall(row_.mutable_create_time(), c_.envelope().wall);
    }
    candidates_before_ = row_.candidates_size();
  }

  ElectionRow& row() { return row_; }
  bool exists() const { return exists_; }

  ElectionCandidate* find(std::string_view id) {
    for (ElectionCandidate& candidate : *row_.mutable_candidates()) {
      if (candidate.id() == id) return &candidate;
    }
    return nullptr;
  }
  ElectionCandidate* find(uint64_t lease, uint64_t secret) {
    for (ElectionCandidate& candidate : *row_.mutable_candidates()) {
      if (candidate.lease() == lease && candidate.secret() == secret) return &candidate;
    }
    return nullptr;
  }

  LeaseId create_lease(int64_t ttl_ms) { return c_.create_lease(kDomain, row_.group(), ttl_ms); }

  void begin_leadership(const std::string& id) {
    row_.set_leader(id);
    const bool reused = machine::planted_bug("reuse_term") && row_.term() > 0 && c_.index().value % 4 == 0;
    if (!reused) row_.set_term(row_.term() + 1);
    // The newest stands first.
    internal::v1::ElectionTerm& added = *row_.add_history();
    added.set_term(row_.term());
    added.set_candidate_id(id);
    set_wall(added.mutable_start_time(), c_.envelope().wall);
    // One leadership a group and entry: the log index grows over everything before.
    added.set_fencing_token(c_.index().value);
    for (int i = row_.history_size() - 1; i > 0; --i) row_.mutable_history()->SwapElements(i, i - 1);
    while (row_.history_size() > kHistoryMax) row_.mutable_history()->RemoveLast();
    add_count("leaders", 1);
    add_count("terms", 1);
    elected_ = true;
  }
  void end_leadership(v1::LeadershipEnd why) {
    row_.clear_leader();
    set_wall(row_.mutable_history(0)->mutable_end_time(), c_.envelope().wall);
    row_.mutable_history(0)->set_end_reason(why);
    add_count("leaders", -1);
    ended_ = true;
  }
  // The best candidate leads, if nobody does.
  void elect() {
    if (!row_.leader().empty()) return;
    const auto order = ranked(row_);
    if (!order.empty() && !order[0].observer()) begin_leadership(order[0].id());
  }

  void remove(const std::string& id, v1::LeadershipEnd why) {
    if (row_.leader() == id) end_leadership(why);
    auto& all = *row_.mutable_candidates();
    for (int i = 0; i < all.size(); ++i) {
      if (all[i].id() == id) return all.DeleteSubrange(i, 1);
    }
  }

  std::string store(const ElectionCandidate* about) {
    if (!exists_) {
      const uint64_t groups = count_of(c_.state(), c_.scope(), "groups");
      kCounts.put(c_.state(), c_.scope(), "groups", ByteWriter().u64(groups + 1).take());
    }
    if (row_.candidates_size() != candidates_before_)
      add_count("candidates", row_.candidates_size() - candidates_before_);
    if (row_.candidates().empty() && row_.idle_lease() == 0) row_.set_idle_lease(create_lease(kForgetAfterMs));
    if (!row_.candidates().empty() && row_.idle_lease() != 0) {
      c_.delete_lease(row_.idle_lease());
      row_.set_idle_lease(0);
    }
    kGroups.put(c_.state(), c_.scope(), row_.group(), row_);
    ElectionResult result;
    *result.mutable_row() = row_;
    if (elected_) *result.mutable_candidate() = *find(row_.leader());
    const auto kind = elected_ ? ChangeKind::kElected : ended_ ? ChangeKind::kLeaderless : ChangeKind::kCandidates;
    c_.emit(kTopic, row_.group(), static_cast<uint8_t>(kind), serialize(result));
    result.clear_candidate();
    if (about != nullptr) *result.mutable_candidate() = *about;
    return serialize(result);
  }

  void forget() {
    kGroups.erase(c_.state(), c_.scope(), row_.group());
    const uint64_t groups = count_of(c_.state(), c_.scope(), "groups");
    kCounts.put(c_.state(), c_.scope(), "groups", ByteWriter().u64(groups - 1).take());
  }

 private:
  void add_count(std::string_view what, int64_t change) {
    const uint64_t count = count_of(c_.state(), {}, what) + static_cast<uint64_t>(change);
    kCounts.put(c_.state(), {}, what, ByteWriter().u64(count).take());
  }

  ApplyContext& c_;
  ElectionRow row_;
  bool exists_ = false;
  int candidates_before_ = 0;
  bool elected_ = false;
  bool ended_ = false;
};

// The best of as many lots as the candidate weighs, for the term that comes next: the best of all leads, so each
// leads in proportion to its weight. A candidate's lots are its own, so those who come and go change nothing among
// the others.
int64_t best_lot(const ElectionRow& row, const ElectionCandidate& c) {
  const uint64_t seed = hash64(ByteWriter().u64(row.term() + 1).bytes(row.group()).bytes(c.id()).take());
  uint64_t best = 0;
  for (uint64_t i = 0; i < static_cast<uint64_t>(std::max(c.weight(), 1)); ++i) {
    best = std::max(best, hash64(ByteWriter().u64(seed + i).take()));
  }
  return static_cast<int64_t>(best >> 1);
}

// Smaller is better; who entered first comes first among equals.
std::tuple<bool, int64_t, uint64_t> rank_of(const ElectionRow& row, const ElectionCandidate& c) {
  int64_t rank = 0;
  switch (row.strategy()) {
    case v1::ELECTION_STRATEGY_PRIORITY: rank = -c.priority(); break;
    case v1::ELECTION_STRATEGY_RESOURCE: rank = c.load_micros(); break;
    case v1::ELECTION_STRATEGY_CUSTOM: rank = -c.score_micros(); break;
    case v1::ELECTION_STRATEGY_WEIGHTED: rank = -best_lot(row, c); break;
    case v1::ELECTION_STRATEGY_GEOGRAPHIC: {
      const bool region = c.region() == row.preferred_region();
      rank = !region ? 2 : c.zone() == row.preferred_zone() || row.preferred_zone().empty() ? 0 : 1;
      break;
    }
    default: break;
  }
  return {c.observer(), rank, c.entered()};
}

}  // namespace

std::vector<ElectionCandidate> ranked(const ElectionRow& row) {
  std::vector<std::pair<std::tuple<bool, int64_t, uint64_t>, const ElectionCandidate*>> ranks;
  for (const ElectionCandidate& c : row.candidates()) ranks.emplace_back(rank_of(row, c), &c);
  std::ranges::sort(ranks, {}, [](const auto& ranked) { return ranked.first; });
  std::vector<ElectionCandidate> order;
  for (const auto& [rank, candidate] : ranks) order.push_back(*candidate);
  return order;
}

const ElectionCandidate* find_candidate(const ElectionRow& row, std::string_view id) {
  const auto it = std::ranges::find_if(row.candidates(), [&](const auto& c) { return c.id() == id; });
  return it == row.candidates().end() ? nullptr : &*it;
}

const ElectionCandidate* find_candidate(const ElectionRow& row, uint64_t lease, uint64_t secret) {
  const auto it =
      std::ranges::find_if(row.candidates(), [&](const auto& c) { return c.lease() == lease && c.secret() == secret; });
  return it == row.candidates().end() ? nullptr : &*it;
}

uint64_t read_count(const machine::KeyReader& state, std::string_view what) { return count_of(state, {}, what); }

Status group_not_found(const std::string& group) {
  return Status(Code::kNotFound, "ELECTION_NOT_FOUND",
                "the election group " + group + " has no candidates and no history")
      .with_resource("election", group);
}

Status candidacy_ended(const std::string& group) {
  return Status(Code::kNotFound, "CANDIDACY_ENDED",
                "there is no candidate of " + group +
                    " with this lease: it resigned or expired. If it led, it has to stop; " + "enter again")
      .with_resource("election", group);
}

std::map<std::string, machine::ApplyFunction, std::less<>> ElectionsState::commands() {
  return {{"enter", enter}, {"resign", resign}, {"report", report}, {"transfer", transfer}};
}

ApplyResult ElectionsState::enter(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::EnterElectionCommand>(payload);
  Group group(c, command.group());
  ElectionRow& row = group.row();
  if (!group.exists() && count_of(c.state(), c.scope(), "groups") >= kGroupsMax) {
    return fail(Code::kExhausted, "ELECTIONS_EXHAUSTED",
                std::to_string(kGroupsMax) + " election groups are in this namespace");
  }
  if (command.strategy() != 0 && command.strategy() != row.strategy()) {
    if (!row.candidates().empty()) {
      return fail(Code::kFailedPrecondition, "STRATEGY_MISMATCH",
                  "the election " + command.group() + " runs with the strategy " +
                      v1::ElectionStrategy_Name(static_cast<v1::ElectionStrategy>(row.strategy())).substr(18) +
                      "; leave it out, or use another group");
    }
    row.set_strategy(command.strategy());
  }
  if (!command.preferred_region().empty()) row.set_preferred_region(command.preferred_region());
  if (!command.preferred_zone().empty()) row.set_preferred_zone(command.preferred_zone());
  ElectionCandidate entered = command.candidate();
  ElectionCandidate* known = group.find(entered.id());
  if (known != nullptr) {
    if (known->principal() != entered.principal()) {
      return fail(Status(Code::kAlreadyExists, "CANDIDATE_TAKEN",
                         "another principal entered the candidate " + entered.id() + " into " + command.group())
                      .with_resource("candidate", entered.id()));
    }
    // The same candidate again: its campaign changes, its place and its proof stay.
    entered.set_lease(known->lease());
    entered.set_secret(known->secret());
    entered.set_entered(known->entered());
    *entered.mutable_enter_time() = known->enter_time();
    if (entered.ttl_ms() == 0) entered.set_ttl_ms(known->ttl_ms());
    c.touch_lease(entered.lease(), entered.ttl_ms());
    *known = entered;
    // An observer does not lead.
    if (entered.observer() && row.leader() == entered.id()) group.end_leadership(v1::LEADERSHIP_END_RESIGNED);
  } else {
    if (row.candidates_size() >= kCandidatesMax) {
      return fail(Code::kExhausted, "CANDIDATES_EXHAUSTED",
                  "the election " + command.group() + " has " + std::to_string(kCandidatesMax) + " candidates already");
    }
    if (entered.ttl_ms() == 0) entered.set_ttl_ms(15'000);
    entered.set_lease(group.create_lease(entered.ttl_ms()));
    entered.set_entered(c.index().value);
    set_wall(entered.mutable_enter_time(), c.envelope().wall);
    *row.add_candidates() = entered;
  }
  group.elect();
  return group.store(&entered);
}

ApplyResult ElectionsState::resign(ApplyContext& c, std::string_view payload) {
  const auto command = parse<CandidateCommand>(payload);
  Group group(c, command.group());
  const ElectionCandidate* candidate = group.find(command.lease(), command.secret());
  if (candidate == nullptr) return fail(candidacy_ended(command.group()));
  c.delete_lease(candidate->lease());
  const ElectionCandidate gone = *candidate;
  group.remove(gone.id(), v1::LEADERSHIP_END_RESIGNED);
  group.elect();
  return group.store(nullptr);
}

ApplyResult ElectionsState::report(ApplyContext& c, std::string_view payload) {
  const auto command = parse<CandidateCommand>(payload);
  Group group(c, command.group());
  ElectionCandidate* candidate = group.find(command.lease(), command.secret());
  if (candidate == nullptr) return fail(candidacy_ended(command.group()));
  if (command.has_load_micros()) candidate->set_load_micros(command.load_micros());
  if (command.has_score_micros()) candidate->set_score_micros(command.score_micros());
  const ElectionCandidate reported = *candidate;
  return group.store(&reported);
}

ApplyResult ElectionsState::transfer(ApplyContext& c, std::string_view payload) {
  const auto command = parse<CandidateCommand>(payload);
  Group group(c, command.group());
  ElectionRow& row = group.row();
  if (!group.exists()) return fail(group_not_found(command.group()));
  if (command.lease() != 0) {
    const ElectionCandidate* caller = group.find(command.lease(), command.secret());
    if (caller == nullptr || caller->id() != row.leader()) {
      return fail(Code::kFailedPrecondition, "NOT_THE_LEADER",
                  "the lease is not that of the leader of " + command.group() + ": only the leader hands over");
    }
  }
  std::string target = command.target();
  if (target.empty()) {
    for (const ElectionCandidate& next : ranked(row)) {
      if (next.observer() || next.id() == row.leader()) continue;
      target = next.id();
      break;
    }
    if (target.empty()) {
      return fail(Code::kFailedPrecondition, "NO_CANDIDATE", "nobody else in " + command.group() + " may lead");
    }
  }
  const ElectionCandidate* found = group.find(target);
  if (found == nullptr) {
    return fail(Status(Code::kNotFound, "CANDIDATE_NOT_FOUND", target + " is no candidate of " + command.group())
                    .with_resource("candidate", target));
  }
  if (found->observer()) {
    return fail(Code::kFailedPrecondition, "CANDIDATE_OBSERVES", target + " only observes and never leads");
  }
  const ElectionCandidate next = *found;
  if (row.leader() == target) {
    ElectionResult unchanged;
    *unchanged.mutable_row() = row;
    *unchanged.mutable_candidate() = next;
    return serialize(unchanged);
  }
  if (!row.leader().empty()) group.end_leadership(v1::LEADERSHIP_END_TRANSFERRED);
  group.begin_leadership(target);
  return group.store(&next);
}

void ElectionsState::on_lease_expired(ApplyContext& c, LeaseId lease, std::string_view key) {
  Group group(c, std::string(key));
  if (!group.exists()) return;
  if (group.row().idle_lease() == lease) return group.forget();
  for (const ElectionCandidate& candidate : group.row().candidates()) {
    if (candidate.lease() != lease) continue;
    const std::string id = candidate.id();
    group.remove(id, v1::LEADERSHIP_END_EXPIRED);
    group.elect();
    group.store(nullptr);
    return;
  }
}

}  // namespace uccp::elections
