#include "raft/core.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "raft/planted.h"
#include "raft/state.h"

namespace uccp::raft {

const char* role_name(Role role) {
  switch (role) {
    case Role::kFollower: return "follower";
    case Role::kPreCandidate: return "pre-candidate";
    case Role::kCandidate: return "candidate";
    case Role::kLeader: return "leader";
    case Role::kLearner: return "learner";
  }
  return "unknown";
}

Core::Core(const Options& options, const Initial& initial, const LogReader& log, uint64_t seed)
    : state_(std::make_unique<State>(options, initial, log, seed)) {}
Core::~Core() = default;
void Core::step(Event event, Outputs& out) { state_->step(std::move(event), out); }
Role Core::role() const { return state_->role(); }
Term Core::term() const { return state_->term(); }
NodeId Core::leader() const { return state_->leader(); }
LogIndex Core::commit() const { return state_->commit(); }
LogPosition Core::last() const { return state_->last(); }
const Membership& Core::membership() const { return state_->membership(); }
std::map<NodeId, LogIndex> Core::match() const { return state_->match(); }
std::string Core::describe() const { return state_->describe(); }

Core::State::State(const Options& options, const Initial& initial, const LogReader& log, uint64_t seed)
    : options_(options),
      random_(seed),
      log_(log, initial.start, initial.last),
      term_(initial.hard_state.term),
      vote_(initial.hard_state.vote),
      announced_(initial.applied),
      applied_(initial.applied),
      saved_(initial.hard_state) {
  UCCP_CHECK(options.id, "a node has an id");
  UCCP_CHECK(options.election_ticks > options.heartbeat_ticks && options.heartbeat_ticks > 0,
             "followers wait longer than one heartbeat");
  UCCP_CHECK(initial.applied >= initial.start.index && initial.applied <= initial.last.index,
             "what is applied is in the log or before its start");
  // A snapshot may have become durable before the term it came with. No vote of that term was sent then.
  if (initial.last.term > term_) {
    term_ = initial.last.term;
    vote_ = NodeId();
  }
  commit_ = std::min(std::max(initial.hard_state.commit, initial.applied), initial.last.index);
  configurations_.push_back({initial.applied, initial.membership});
  for (const Entry& entry : initial.configurations) {
    UCCP_CHECK(entry.kind == EntryKind::kConfiguration && entry.index > configurations_.back().index,
               "the configurations behind `applied` ascend");
    note_configuration(entry);
  }
  // Before this start the node may have promised a leader not to vote for others.
  contact_elapsed_ = options.lease_reads ? 0 : options.election_ticks;
  tick_rounds_.resize(options.election_ticks + 1);
  reset_election_timer();
}

Role Core::State::role() const { return role_ == Role::kFollower && !promotable() ? Role::kLearner : role_; }

std::map<NodeId, LogIndex> Core::State::match() const {
  std::map<NodeId, LogIndex> result;
  if (role_ != Role::kLeader) return result;
  result[options_.id] = log_.durable();
  for (const auto& [peer, progress] : peers_) result[peer] = progress.match();
  return result;
}

std::string Core::State::describe() const {
  return fmt::format("{} term={} vote={} leader={} commit={} last={} {}", role_name(role()), term_.value, vote_.value,
                     leader_.value, commit_.value, to_string(log_.last()), to_string(membership()));
}

void Core::State::step(Event event, Outputs& out) {
  out_ = &out;
  const auto watched = [this] { return std::tuple(role(), term_, leader_, configuration_changes_); };
  const auto before = watched();
  std::visit([this](auto&& e) { on(std::move(e)); }, std::move(event));
  flush();
  out.state_changed = out.state_changed || watched() != before;
  out_ = nullptr;
}

void Core::State::on(const Tick&) {
  if (role_ == Role::kLeader) {
    tick_leader();
  } else {
    tick_follower();
  }
}

void Core::State::on(Receive&& event) {
  Message& message = event.message;
  if (message.to != options_.id || message.from == options_.id || !message.from) return;
  if (settle_term(message)) receive_current(message);
}

bool Core::State::settle_term(const Message& message) {
  const MessageKind kind = message.kind;
  const bool from_leader =
      kind == MessageKind::kAppend || kind == MessageKind::kHeartbeat || kind == MessageKind::kSnapshotOffer;
  if (message.term > term_) {
    const bool asks_vote = kind == MessageKind::kVote || kind == MessageKind::kPreVote;
    if (asks_vote && !message.transfer && protects_leader()) return false;
    // A pre-vote and its grant name a term that nobody has started.
    const bool hypothetical =
        kind == MessageKind::kPreVote || (kind == MessageKind::kPreVoteResponse && !message.refused);
    if (hypothetical) return true;
    const bool waits = role_ == Role::kFollower && asks_vote;
    const auto timer = std::pair(election_elapsed_, election_timeout_);
    become_follower(message.term, from_leader ? message.from : NodeId());
    // Only a vote that is given is a reason to wait longer. Otherwise nodes that cannot win could go on keeping the one
    // that can from its candidacy.
    if (waits) std::tie(election_elapsed_, election_timeout_) = timer;
    return true;
  }
  if (message.term == term_) return true;
  // The sender missed an election. Telling it our term frees a leader or candidate that would never hear of it: with
  // pre-vote or a protected leader this node starts no election that it could hear instead.
  if (from_leader) {
    Message response = make(MessageKind::kAppendResponse, message.from);
    response.refused = true;
    send(std::move(response));
  } else if (kind == MessageKind::kVote || kind == MessageKind::kPreVote) {
    Message response =
        make(kind == MessageKind::kVote ? MessageKind::kVoteResponse : MessageKind::kPreVoteResponse, message.from);
    response.refused = true;
    send(std::move(response));
  }
  return false;
}

void Core::State::receive_current(Message& message) {
  switch (message.kind) {
    case MessageKind::kAppend: return on_append(message);
    case MessageKind::kHeartbeat: return on_heartbeat(message);
    case MessageKind::kSnapshotOffer: return on_snapshot_offer(message);
    case MessageKind::kVote:
    case MessageKind::kPreVote: return on_vote(message);
    case MessageKind::kVoteResponse:
    case MessageKind::kPreVoteResponse: return on_vote_response(message);
    case MessageKind::kTimeoutNow: return on_timeout_now(message);
    case MessageKind::kAppendResponse: return on_append_response(message);
    case MessageKind::kHeartbeatResponse: return on_heartbeat_response(message);
  }
}

void Core::State::on(const Persisted& event) {
  LogIndex durable = log_.durable();
  while (!writes_.empty() && writes_.front().sequence <= event.sequence) {
    durable = std::max(durable, writes_.front().last);
    writes_.pop_front();
  }
  log_.persisted(durable);
  if (vote_sequence_ != 0 && vote_sequence_ <= event.sequence) {
    vote_sequence_ = 0;
    votes_[options_.id] = true;
    tally();
  }
  if (role_ == Role::kLeader) maybe_commit();
}

void Core::State::on(const Applied& event) {
  UCCP_CHECK(event.index <= commit_, "only committed entries are applied");
  applied_ = std::max(applied_, event.index);
}

void Core::State::on(const SnapshotInstalled& event) {
  const LogPosition position = event.position;
  // A node that leads by now has what is committed in its log, perhaps without knowing that it is.
  if (position.index > commit_ && !log_.holds(position)) {
    UCCP_CHECK(role_ != Role::kLeader, "a leader has every committed entry");
    log_.reset(position);
    for (Write& write : writes_) write.last = std::min(write.last, position.index);
    out_->persist.log_start = position;
    out_->persist.entries.clear();
    wrote_ = true;
    configurations_.assign(1, {position.index, event.membership});
    ++configuration_changes_;
    commit_ = position.index;
  }
  advance_commit(position.index);
  applied_ = std::max(applied_, position.index);
  announced_ = std::max(announced_, position.index);
  if (leader_ && leader_ != options_.id) acknowledge(commit_, leader_);
}

void Core::State::on(const Compacted& event) {
  UCCP_CHECK(event.position.index <= applied_, "only applied entries are compacted");
  log_.compact(event.position);
}

void Core::State::append_entry(Entry entry) {
  if (entry.kind == EntryKind::kConfiguration) note_configuration(entry);
  out_->persist.entries.push_back(entry);
  log_.append(std::move(entry));
  wrote_ = true;
}

void Core::State::truncate_to(LogPosition position) {
  UCCP_CHECK(position.index >= commit_, "committed entries are never overwritten");
  log_.truncate_to(position);
  // A write under way still makes what it shares with the new log durable, and nothing behind that.
  for (Write& write : writes_) write.last = std::min(write.last, position.index);
  std::vector<Entry>& unsaved = out_->persist.entries;
  while (!unsaved.empty() && unsaved.back().index > position.index) unsaved.pop_back();
  while (configurations_.size() > 1 && configurations_.back().index > position.index) {
    configurations_.pop_back();
    ++configuration_changes_;
  }
}

void Core::State::note_configuration(const Entry& entry) {
  if (UCCP_PLANTED(ignore_config_on_append) && role_ != Role::kLeader) return;
  Result<Membership> membership = decode_membership(entry.data);
  UCCP_CHECK(membership.has_value(), "a configuration entry in the log was checked before it was appended");
  configurations_.push_back({entry.index, std::move(*membership)});
  ++configuration_changes_;
}

void Core::State::advance_commit(LogIndex index) {
  if (index <= commit_) return;
  UCCP_CHECK(index <= log_.last().index, "only entries of the log are committed");
  commit_ = index;
  // What is committed is never truncated, so only the last committed configuration can be needed again.
  auto first = configurations_.begin();
  while (std::next(first) != configurations_.end() && std::next(first)->index <= commit_) ++first;
  configurations_.erase(configurations_.begin(), first);
}

void Core::State::flush() {
  Persist& persist = out_->persist;
  const LogIndex applicable = std::min(commit_, log_.durable());
  const bool vote_changed = term_ != saved_.term || vote_ != saved_.vote;
  // The commit index alone is not worth a write: after a restart the leader tells it again.
  if (vote_changed || (wrote_ && applicable > saved_.commit)) {
    saved_ = {term_, vote_, std::max(applicable, saved_.commit)};
    persist.hard_state = saved_;
    if (UCCP_PLANTED(forget_vote)) persist.hard_state->vote = NodeId();
  }
  if (vote_changed || wrote_) writes_.push_back({++sequence_, log_.last().index});
  wrote_ = false;
  std::vector<Message>& held = writes_.empty() ? out_->messages : persist.messages;
  std::move(promises_.begin(), promises_.end(), std::back_inserter(held));
  promises_.clear();
  if (!persist.empty()) persist.sequence = sequence_;
  if (applicable > announced_) {
    announced_ = applicable;
    out_->commit = applicable;
  }
}

Message Core::State::make(MessageKind kind, NodeId to) const {
  Message message;
  message.kind = kind;
  message.from = options_.id;
  message.to = to;
  message.term = term_;
  return message;
}

void Core::State::refuse_not_leader(uint64_t token) {
  if (!leader_) {
    return refuse(token, Status(Code::kNotLeader, "NOT_LEADER",
                                fmt::format("node {} does not lead the group and knows no leader", options_.id.value)));
  }
  refuse(token, Status(Code::kNotLeader, "NOT_LEADER",
                       fmt::format("node {} does not lead the group, node {} does", options_.id.value, leader_.value))
                    .with_leader_hint(std::to_string(leader_.value)));
}

}  // namespace uccp::raft
