#include "sim/cluster/election_client.h"

#include "call/contract.h"
#include "services/elections/elections_service.h"

namespace uccp::sim {
namespace {

constexpr const char* kElection = "election";

const call::Method* method(std::string_view rpc) {
  return call::Contract::get().find("uccp.v1.Coordination/" + std::string(rpc));
}

void set_ms(google::protobuf::Duration* out, int64_t ms) {
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
}

}  // namespace

ElectionClient::ElectionClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "candidate-" + std::to_string(number)), left_(operations) {}

void ElectionClient::start() {
  after_us(below(50'000), [this] { enter(); });
}

void ElectionClient::enter() {
  if (left_ == 0) return;
  static const call::Method* const elect = method("ElectLeader");
  ttl_ms_ = 500 + below(1000);
  candidate_ = name() + "." + std::to_string(++candidacies_);
  v1::ElectLeaderRequest request;
  request.set_group(kElection);
  request.mutable_candidate()->set_id(candidate_);
  set_ms(request.mutable_ttl(), ttl_ms_);
  set_ms(request.mutable_wait_timeout(), 1000);
  ask({.method = elect, .request = request.SerializeAsString(), .deadline_ms = 1500},
      [this](const Result<machine::Applied>& result, int64_t called_us) {
        if (result) return entered(called_us, result->response);
        const Code code = result.error().code();
        if (code != Code::kDeadline && code != Code::kFailedPrecondition && code != Code::kNotFound) {
          cluster_.checkers().violations.add("elections", candidate_ + ": " + result.error().to_string());
        }
        completed();
      });
}

void ElectionClient::entered(int64_t called_us, const std::string& response) {
  v1::Election election;
  if (!election.ParseFromString(response)) {
    return cluster_.checkers().violations.add("elections", candidate_ + ": no election");
  }
  lease_ = election.lease_id();
  note(election);
  if (!election.is_leader()) return chance(0.3) ? resign() : lead();
  HoldChecker& holds = cluster_.checkers().holds;
  holds.shown("elections", election.fencing_token(), candidate_);
  holds.holds(kElection, candidate_, called_us, ttl_ms_, cluster_.now_us());
  lead();
}

void ElectionClient::note(const v1::Election& election) {
  TermChecker& terms = cluster_.checkers().terms;
  if (election.has_leader()) terms.led(election.term(), election.leader().id());
  for (const v1::Leadership& past : election.history()) terms.led(past.term(), past.candidate_id());
}

void ElectionClient::lead() {
  after_us(below(100'000), [this] {
    if (!cluster_.healed() && chance(0.1)) return after_us(ttl_ms_ * 1000, [this] { completed(); });
    if (chance(0.6)) renew();
    else resign();
  });
}

void ElectionClient::renew() {
  static const call::Method* const renew = method("RenewLeadership");
  v1::RenewLeadershipRequest request;
  request.set_group(kElection);
  request.set_lease_id(lease_);
  try_once(kCoreGroup,
           SimCluster::service({.method = renew, .request = request.SerializeAsString(), .principal = name()}),
           [this](const Result<machine::Applied>& result, int64_t called_us) {
             v1::Election election;
             if (result && election.ParseFromString(result->response)) {
               note(election);
               HoldChecker& holds = cluster_.checkers().holds;
               if (election.is_leader()) {
                 holds.holds(kElection, candidate_, called_us, ttl_ms_, cluster_.now_us());
               }
               return lead();
             }
             const Code code = result ? Code::kOk : result.error().code();
             if (code != Code::kNotFound && code != Code::kFailedPrecondition) return lead();
             cluster_.checkers().holds.released(kElection, candidate_);
             completed();
           });
}

void ElectionClient::resign() {
  static const call::Method* const resign = method("ResignLeadership");
  cluster_.checkers().holds.released(kElection, candidate_);
  v1::ResignLeadershipRequest request;
  request.set_group(kElection);
  request.set_lease_id(lease_);
  ask({.method = resign, .request = request.SerializeAsString(), .deadline_ms = 300},
      [this](const Result<machine::Applied>& result, int64_t) {
        if (!result && result.error().code() != Code::kNotFound && result.error().code() != Code::kFailedPrecondition) {
          cluster_.checkers().violations.add("elections", candidate_ + " resigning: " + result.error().to_string());
        }
        completed();
      });
}

void ElectionClient::completed() {
  --left_;
  after_us(below(50'000), [this] { enter(); });
}

}  // namespace uccp::sim
