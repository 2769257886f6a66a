// Roles, votes and the election timer of a Core. Ongaro (2014), sections 3.4, 4.2.3 (disruption), 9.6 (pre-vote).
#include <algorithm>
#include <tuple>

#include "raft/planted.h"
#include "raft/state.h"

namespace uccp::raft {
namespace {

constexpr uint64_t kTimeoutDraws = 1u << 16;

}  // namespace

// The voter whose id follows the leader's, in a circle.
bool Core::State::succeeds_leader() const {
  const std::set<NodeId>& voters = membership().voters;
  if (!leader_ || voters.empty()) return false;
  const auto next = voters.upper_bound(leader_);
  return (next == voters.end() ? *voters.begin() : *next) == options_.id;
}

// The successor waits no longer than it must, so that a silent leader costs election_ticks whenever its successor is
// well. Most draws of the others are short too, although all of [election_ticks, 2 * election_ticks) is possible: nodes
// that time out together do not split the votes, because all but one of them withdraw in the round of pre-votes.
void Core::State::reset_election_timer() {
  election_elapsed_ = 0;
  const uint64_t ticks = options_.election_ticks;
  const uint64_t draw = succeeds_leader() ? 0 : random_.below(kTimeoutDraws);
  election_timeout_ = static_cast<uint32_t>(ticks + ticks * draw * draw / (kTimeoutDraws * kTimeoutDraws));
}

// A voter of the configuration before an uncommitted one has to be able to win too: it may be the only node that has
// the new entry, and then nobody else can be elected (section 4.2.2).
bool Core::State::promotable() const {
  if (membership().is_voter(options_.id)) return true;
  if (configurations_.size() < 2 || configurations_.back().index <= commit_) return false;
  return configurations_[configurations_.size() - 2].membership.is_voter(options_.id);
}

bool Core::State::protects_leader() const {
  if (options_.lease_reads && contact_elapsed_ < options_.election_ticks) return true;
  if (!options_.check_quorum && !options_.lease_reads) return false;
  if (role_ == Role::kLeader) return true;
  return leader_ && contact_elapsed_ < options_.election_ticks;
}

void Core::State::tick_follower() {
  ++election_elapsed_;
  contact_elapsed_ = std::min(contact_elapsed_ + 1, options_.election_ticks);
  const bool timed_out = election_elapsed_ >= election_timeout_;
  if (!promotable()) {
    if (timed_out) become_follower(term_, NodeId());
    return;
  }
  // As long as the disk holds the vote back, no request for others' votes was sent; another term would not help.
  if (vote_sequence_ != 0) return;
  if (timed_out || membership().is_only_voter(options_.id)) return on(Campaign{});
  // A voter that had heard the leader a moment later did not answer; by now it may, without waiting for another
  // timeout.
  if (role_ == Role::kPreCandidate && election_elapsed_ % options_.heartbeat_ticks == 0) ask_pre_votes();
}

void Core::State::on(const Campaign&) {
  if (role_ == Role::kLeader || !promotable()) return;
  if (options_.pre_vote && !membership().is_only_voter(options_.id)) {
    pre_campaign();
  } else {
    campaign(false);
  }
}

void Core::State::become_follower(Term term, NodeId leader) {
  const bool led = role_ == Role::kLeader;
  if (led) {
    peers_.clear();
    transfer_.reset();
    uncommitted_.clear();
    uncommitted_bytes_ = 0;
  }
  if (term > term_) {
    term_ = term;
    vote_ = NodeId();
  }
  role_ = Role::kFollower;
  leader_ = leader;
  votes_.clear();
  vote_sequence_ = 0;
  reset_election_timer();
  if (!led) return;
  // Now, that the hint names the new leader if it is known.
  for (const PendingRead& read : reads_) refuse_not_leader(read.token);
  reads_.clear();
}

void Core::State::pre_campaign() {
  become_follower(term_, NodeId());
  role_ = Role::kPreCandidate;
  votes_[options_.id] = true;
  ask_pre_votes();
  tally();
}

void Core::State::ask_pre_votes() {
  for (NodeId peer : membership().members()) {
    if (!membership().is_voter(peer) || votes_.contains(peer)) continue;
    Message request = make(MessageKind::kPreVote, peer);
    request.term = term_.next();
    request.log = log_.last();
    send(std::move(request));
  }
}

// Of two that ask for pre-votes at the same time one withdraws, or both would campaign and split the votes. Once while
// there is no leader: the other may be one that nobody's answers reach.
bool Core::State::withdraws_for(const Message& message) const {
  if (role_ != Role::kPreCandidate || withdrew_) return false;
  const auto rank = [](LogPosition last, NodeId id) { return std::tuple(last.term, last.index, ~id.value); };
  return rank(message.log, message.from) > rank(log_.last(), options_.id);
}

void Core::State::campaign(bool ordered) {
  become_follower(term_.next(), NodeId());
  role_ = Role::kCandidate;
  vote_ = options_.id;
  // The own vote counts when this step's write is durable: until then a crash would let the node vote again.
  vote_sequence_ = sequence_ + 1;
  for (NodeId peer : membership().members()) {
    if (peer == options_.id || !membership().is_voter(peer)) continue;
    Message request = make(MessageKind::kVote, peer);
    request.log = log_.last();
    request.transfer = ordered;
    // Held back as well: after a crash the node could ask in the same term with a shorter log, and count these votes.
    send_when_durable(std::move(request));
  }
}

void Core::State::tally() {
  const VoteResult result = quorum_vote(membership(), [this](NodeId voter) {
    const auto found = votes_.find(voter);
    if (found == votes_.end()) return VoteResult::kPending;
    return found->second ? VoteResult::kWon : VoteResult::kLost;
  });
  if (result == VoteResult::kPending) return;
  if (result == VoteResult::kLost) {
    become_follower(term_, NodeId());
  } else if (role_ == Role::kPreCandidate) {
    campaign(false);
  } else {
    become_leader();
  }
}

void Core::State::become_leader() {
  role_ = Role::kLeader;
  leader_ = options_.id;
  votes_.clear();
  vote_sequence_ = 0;
  term_start_ = log_.last().index.next();
  heartbeat_elapsed_ = 0;
  quorum_elapsed_ = 0;
  lease_void_ = false;
  // Rounds before this are no evidence for a lease of this term.
  std::fill(tick_rounds_.begin(), tick_rounds_.end(), round_ + 1);
  read_round_ = 0;
  peers_.clear();
  sync_peers();
  // An entry of the own term is the only way to find out what is committed (section 6.4).
  append_entry({term_, log_.last().index.next(), EntryKind::kNoop, {}});
  replicate_all();
}

void Core::State::on_vote(const Message& message) {
  const bool pre = message.kind == MessageKind::kPreVote;
  const LogPosition last = log_.last();
  const bool free = vote_ == message.from || (!vote_ && !leader_) || (pre && message.term > term_);
  const bool up_to_date = UCCP_PLANTED(vote_for_stale) || message.log.term > last.term ||
                          (message.log.term == last.term && message.log.index >= last.index);
  Message response = make(pre ? MessageKind::kPreVoteResponse : MessageKind::kVoteResponse, message.from);
  response.refused = !free || !up_to_date;
  if (response.refused || pre) {
    if (!response.refused) response.term = message.term;
    if (!response.refused && withdraws_for(message)) {
      become_follower(term_, NodeId());
      withdrew_ = true;
    }
    send(std::move(response));
    return;
  }
  vote_ = message.from;
  election_elapsed_ = 0;
  send_when_durable(std::move(response));
}

void Core::State::on_vote_response(const Message& message) {
  const bool pre = message.kind == MessageKind::kPreVoteResponse;
  if (role_ != (pre ? Role::kPreCandidate : Role::kCandidate)) return;
  if (pre && !message.refused && message.term != term_.next()) return;
  votes_.emplace(message.from, !message.refused);
  tally();
}

void Core::State::on_timeout_now(const Message& message) {
  if (leader_ == message.from && role_ == Role::kFollower && promotable()) campaign(true);
}

}  // namespace uccp::raft
