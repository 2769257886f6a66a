#include "sim/cluster/election_client.h"

#include <limits>

#include "services/elections/elections_service.h"
#include "services/message_types.h"

namespace uccp::sim {
namespace {

using services::set_ms;

constexpr const char* kElection = "election";
constexpr int64_t kWaitMs = 1000;
constexpr int64_t kDeadlineMs = 1500;
constexpr int64_t kResignMs = 300;

}  // namespace

ElectionClient::ElectionClient(SimCluster& cluster, size_t number, uint64_t operations)
    : HoldClient(cluster, "candidate-" + std::to_string(number), operations,
                 {.what = "elections",
                  .hold_us_max = 100'000,
                  .rest_us_max = 50'000,
                  .falls_silent = 0.1,
                  .renews = 0.6,
                  .renewals_max = std::numeric_limits<int>::max(),
                  .over = {Code::kNotFound, Code::kFailedPrecondition},
                  .may_end = {Code::kNotFound, Code::kFailedPrecondition}}) {}

void ElectionClient::begin() {
  static const call::Method* const elect = method("ElectLeader");
  begin_hold(kElection, 500 + below(1000));
  v1::ElectLeaderRequest request;
  request.set_group(kElection);
  request.mutable_candidate()->set_id(owner_);
  set_ms(request.mutable_ttl(), ttl_ms_);
  set_ms(request.mutable_wait_timeout(), kWaitMs);
  ask({.method = elect, .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs},
      [this](const Result<machine::Applied>& result, int64_t called_us) {
        if (result) return entered(called_us, result->response);
        const Code code = result.error().code();
        if (code != Code::kDeadline && code != Code::kFailedPrecondition && code != Code::kNotFound) {
          wrong(result.error().to_string());
        }
        completed();
      });
}

void ElectionClient::entered(int64_t called_us, const std::string& response) {
  v1::Election election;
  if (!election.ParseFromString(response)) return wrong("no election");
  lease_ = election.lease_id();
  note(election);
  if (!election.is_leader()) return chance(0.3) ? give_up() : hold();
  cluster_.checkers().holds.shown("elections", election.fencing_token(), owner_);
  relies(called_us);
  hold();
}

void ElectionClient::note(const v1::Election& election) {
  TermChecker& terms = cluster_.checkers().terms;
  if (election.has_leader()) terms.led(election.term(), election.leader().id());
  for (const v1::Leadership& past : election.history()) terms.led(past.term(), past.candidate_id());
}

bool ElectionClient::still_holds(const std::string& response) {
  v1::Election election;
  if (!election.ParseFromString(response)) return false;
  note(election);
  return election.is_leader();
}

ServiceCall ElectionClient::renewal() {
  static const call::Method* const renew = method("RenewLeadership");
  v1::RenewLeadershipRequest request;
  request.set_group(kElection);
  request.set_lease_id(lease_);
  return {.method = renew, .request = request.SerializeAsString(), .principal = name()};
}

ServiceCall ElectionClient::release() {
  static const call::Method* const resign = method("ResignLeadership");
  v1::ResignLeadershipRequest request;
  request.set_group(kElection);
  request.set_lease_id(lease_);
  return {.method = resign, .request = request.SerializeAsString(), .deadline_ms = kResignMs};
}

}  // namespace uccp::sim
