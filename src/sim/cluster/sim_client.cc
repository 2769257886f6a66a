#include "sim/cluster/sim_client.h"

#include "call/contract.h"

namespace uccp::sim {

struct SimClient::Call {
  GroupId group;
  SimCluster::Serve serve;
  Done done;
  bool any_node = false;  // and not only the leader
  bool may_give_up = false;
  int64_t patience_ms = 200;  // of one attempt, at least
  int64_t called_us = 0;
  uint64_t attempts = 0;
  bool finished = false;

  void finish(Result<machine::Applied> result) {
    if (std::exchange(finished, true)) return;
    done(std::move(result), called_us);
  }
};

namespace {

constexpr int64_t kSubscriptionDeadlineMs = 400;

// The same request may have another answer later, or the answer is not known.
bool is_open(const Status& status) {
  // A wait that ended by its time is an answer.
  if (status.code() == Code::kDeadline) return false;
  return code_info(status.code()).retryable || status.code() == Code::kOutcomeUnknown ||
         status.code() == Code::kNotLeader;
}

Status no_answer() { return Status(Code::kOutcomeUnknown, "NO_ANSWER", "the client gave up"); }

}  // namespace

SimClient::SimClient(SimCluster& cluster, std::string name)
    : cluster_(cluster), random_(cluster.next_seed()), name_(std::move(name)) {}

machine::Envelope SimClient::envelope(std::string command, std::string payload) {
  machine::Envelope e;
  e.scope = {"t", "n"};
  e.command = std::move(command);
  e.payload = std::move(payload);
  return e;
}

void SimClient::deduplicate(machine::Envelope& e) {
  e.principal = name_;
  e.method = e.command;
  e.audited = chance(0.25);
  e.dedup.request_hash = hash64(e.payload);
  if (session_) {
    e.dedup.session = session_;
    e.dedup.sequence = ++sequence_;
    // One request at a time: the answers to those before are known, or given up.
    e.dedup.acknowledged_below = sequence_;
  } else {
    e.dedup.request_id = "r" + std::to_string(++requests_);
  }
}

void SimClient::write(GroupId group, machine::Envelope e, Done done) {
  deduplicate(e);
  repeat({.group = group,
          .serve = SimCluster::propose(group, std::move(e)),
          .done = std::move(done),
          .may_give_up = true});
}

void SimClient::cancel_task(machine::Envelope e, internal::v1::CancelCommand command, Done done) {
  deduplicate(e);
  repeat({.group = kWorkGroup,
          .serve = SimCluster::cancel_task(std::move(e), std::move(command)),
          .done = std::move(done),
          .may_give_up = true});
}

void SimClient::read(GroupId group, machine::ReadLevel level, SimCluster::Query query, Done done) {
  repeat({.group = group,
          .serve = SimCluster::read(group, std::move(level), std::move(query)),
          .done = std::move(done),
          .any_node = true});
}

void SimClient::ask(ServiceCall call, Done done) {
  call.principal = name_;
  call.request_id = "r" + std::to_string(++requests_);
  const int64_t patience_ms = call.deadline_ms;
  repeat({.group = kCoreGroup,
          .serve = SimCluster::service(std::move(call)),
          .done = std::move(done),
          .patience_ms = patience_ms});
}

void SimClient::ask_leader(GroupId group, ServiceCall call, Done done) {
  call.principal = name_;
  const int64_t patience_ms = call.deadline_ms;
  repeat({.group = group,
          .serve = SimCluster::service(std::move(call)),
          .done = std::move(done),
          .patience_ms = patience_ms});
}

void SimClient::ask_any_node(ServiceCall call, Done done) {
  call.principal = name_;
  const int64_t patience_ms = call.deadline_ms;
  repeat({.group = kCoreGroup,
          .serve = SimCluster::service(std::move(call)),
          .done = std::move(done),
          .any_node = true,
          .patience_ms = patience_ms});
}

void SimClient::ask_subscriptions(const char* rpc, std::string request, Done done) {
  ServiceCall call{.method = call::Contract::get().find("uccp.v1.EventBus/" + std::string(rpc)),
                   .request = std::move(request),
                   .principal = name(),
                   .deadline_ms = kSubscriptionDeadlineMs};
  // Only who leads serves subscriptions; others pass the call on.
  const auto serve = [call = std::move(call)](SimNode& node, const SimCluster::Reply& reply) {
    if (node.node().leads(kCoreGroup)) return node.services().call(call, reply);
    reply(fail(Code::kNotLeader, "NOT_LEADER", "another node serves subscriptions"));
  };
  try_once(kCoreGroup, serve, std::move(done));
}

size_t SimClient::target(GroupId group) {
  const auto known = leaders_.find(group);
  if (known != leaders_.end() && cluster_.has_node(known->second)) return known->second;
  return leaders_[group] = cluster_.any_place(random_);
}

// Who stays with a node, mostly the leader, goes on reading from it when it leads no more, and nobody told it.
size_t SimClient::reads_from(GroupId group) {
  if (!stays_) return chance(0.4) ? cluster_.any_place(random_) : target(group);
  if (!home_ || !cluster_.running(*home_) || chance(0.03)) {
    const size_t leader = cluster_.leader(group);
    home_ = leader < cluster_.places() && chance(0.8) ? leader : cluster_.any_place(random_);
  }
  return *home_;
}

void SimClient::learn(GroupId group, size_t asked, const Status& status) {
  const std::string& hint = status.detail().leader_hint;
  const size_t place = hint.empty() ? cluster_.places() : cluster_.place_of(NodeId(std::stoull(hint)));
  if (place < cluster_.places() && place != asked) leaders_[group] = place;
  else if (target(group) == asked) leaders_[group] = cluster_.any_place(random_);
}

void SimClient::repeat(Call what) {
  auto call = std::make_shared<Call>(std::move(what));
  call->called_us = cluster_.now_us();
  send(call);
}

void SimClient::send(const std::shared_ptr<Call>& call) {
  if (call->finished) return;
  if (call->may_give_up && call->attempts >= 2 && !cluster_.healed() && chance(0.03)) {
    return call->finish(std::unexpected(no_answer()));
  }
  const uint64_t attempt = ++call->attempts;
  const size_t asked = call->any_node ? reads_from(call->group) : target(call->group);
  const auto again = [this, call, attempt] {
    if (call->attempts == attempt) send(call);
  };
  after_us(call->patience_ms * 1000 + below(600'000), [this, call, asked, attempt, again] {
    if (call->finished || call->attempts != attempt) return;
    home_.reset();
    learn(call->group, asked, no_answer());
    again();
  });
  cluster_.call(asked, call->serve, [this, call, asked, again](Result<machine::Applied> result) {
    if (result || !is_open(result.error())) {
      if (!call->finished) cluster_.count_operation();
      return call->finish(std::move(result));
    }
    learn(call->group, asked, result.error());
    // Who was told where the leader is goes there at once.
    after_us(result.error().detail().leader_hint.empty() ? 5'000 + below(50'000) : below(2'000), again);
  });
}

void SimClient::try_once(GroupId group, SimCluster::Serve serve, Done done) {
  auto call = std::make_shared<Call>();
  call->done = std::move(done);
  call->called_us = cluster_.now_us();
  const size_t asked = target(group);
  after_us(1'000'000, [this, call, group, asked] {
    if (!call->finished) learn(group, asked, no_answer());
    call->finish(std::unexpected(no_answer()));
  });
  cluster_.call(asked, std::move(serve), [this, call, group, asked](Result<machine::Applied> result) {
    if (call->finished) return;
    if (!result && is_open(result.error())) learn(group, asked, result.error());
    else cluster_.count_operation();
    call->finish(std::move(result));
  });
}

}  // namespace uccp::sim
