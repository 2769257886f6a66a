#include "sim/cluster/sim_client.h"

namespace uccp::sim {

struct SimClient::Call {
  SimCluster::Serve serve;
  Done done;
  int64_t called_us = 0;
  uint64_t attempts = 0;
  bool may_give_up = false;
  bool finished = false;

  void finish(Result<machine::Applied> result) {
    if (std::exchange(finished, true)) return;
    done(std::move(result), called_us);
  }
};

namespace {

// The same request may have another answer later, or the answer is not known.
bool is_open(const Status& status) {
  return code_info(status.code()).retryable || status.code() == Code::kOutcomeUnknown ||
         status.code() == Code::kNotLeader;
}

Status no_answer() { return Status(Code::kOutcomeUnknown, "NO_ANSWER", "the client gave up"); }

}  // namespace

SimClient::SimClient(SimCluster& cluster, std::string name)
    : cluster_(cluster), name_(std::move(name)), random_(cluster.next_seed()) {}

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
  e.audited = true;
  e.dedup.request_hash = hash64(e.payload);
  if (session_) {
    e.dedup.session = session_;
    e.dedup.sequence = ++sequence_;
  } else {
    e.dedup.request_id = "r" + std::to_string(++requests_);
  }
}

void SimClient::write(GroupId group, machine::Envelope e, Done done) {
  deduplicate(e);
  repeat(SimCluster::propose(group, std::move(e)), true, std::move(done));
}

void SimClient::cancel_task(machine::Envelope e, internal::v1::CancelCommand command, Done done) {
  deduplicate(e);
  repeat(SimCluster::cancel_task(std::move(e), std::move(command)), true, std::move(done));
}

void SimClient::read(GroupId group, machine::ReadLevel level, SimCluster::Query query, Done done) {
  repeat(SimCluster::read(group, std::move(level), std::move(query)), false, std::move(done));
}

void SimClient::repeat(SimCluster::Serve serve, bool may_give_up, Done done) {
  auto call = std::make_shared<Call>();
  call->serve = std::move(serve);
  call->done = std::move(done);
  call->called_us = cluster_.now_us();
  call->may_give_up = may_give_up;
  send(call);
}

void SimClient::send(const std::shared_ptr<Call>& call) {
  if (call->finished) return;
  if (call->may_give_up && call->attempts >= 2 && !cluster_.healed() && chance(0.03)) {
    return call->finish(std::unexpected(no_answer()));
  }
  const uint64_t attempt = ++call->attempts;
  const auto again = [this, call, attempt] {
    if (call->attempts == attempt) send(call);
  };
  after_us(200'000 + below(600'000), again);
  cluster_.call(0, call->serve, [this, call, again](Result<machine::Applied> result) {
    if (result || !is_open(result.error())) {
      if (!call->finished) cluster_.count_operation();
      return call->finish(std::move(result));
    }
    after_us(5'000 + below(50'000), again);
  });
}

void SimClient::try_once(SimCluster::Serve serve, Done done) {
  auto call = std::make_shared<Call>();
  call->done = std::move(done);
  call->called_us = cluster_.now_us();
  after_us(1'000'000, [call] { call->finish(std::unexpected(no_answer())); });
  cluster_.call(0, std::move(serve), [this, call](Result<machine::Applied> result) {
    if (!call->finished) cluster_.count_operation();
    call->finish(std::move(result));
  });
}

}  // namespace uccp::sim
