#include "sim/cluster/hold_client.h"

#include "call/contract.h"

namespace uccp::sim {

HoldClient::HoldClient(SimCluster& cluster, std::string name, uint64_t operations, Habits habits)
    : SimClient(cluster, std::move(name)), habits_(std::move(habits)), left_(operations) {}

const call::Method* HoldClient::method(std::string_view rpc) {
  return call::Contract::get().find("uccp.v1.Coordination/" + std::string(rpc));
}

void HoldClient::start() {
  after_us(below(50'000), [this] { next(); });
}

void HoldClient::next() {
  if (left_ > 0) begin();
}

void HoldClient::begin_hold(std::string thing, int64_t ttl_ms) {
  thing_ = std::move(thing);
  ttl_ms_ = ttl_ms;
  owner_ = name() + "." + std::to_string(++holds_);
  renewals_ = 0;
}

void HoldClient::relies(int64_t called_us) {
  if (cluster_.tracing()) {
    cluster_.note(owner_ + " holds " + thing_ + " by lease " + lease_ + " for " + std::to_string(ttl_ms_) +
                  " ms, asked at " + std::to_string(called_us));
  }
  cluster_.checkers().holds.holds(thing_, owner_, called_us, ttl_ms_, cluster_.now_us());
}

void HoldClient::hold() {
  after_us(below(habits_.hold_us_max), [this] {
    if (!cluster_.healed() && chance(habits_.falls_silent)) {
      return after_us(ttl_ms_ * 1000, [this] { completed(); });
    }
    if (renewals_ < habits_.renewals_max && chance(habits_.renews)) renew();
    else give_up();
  });
}

void HoldClient::renew() {
  ++renewals_;
  try_once(kCoreGroup, SimCluster::service(renewal()),
           [this](const Result<machine::Applied>& result, int64_t called_us) {
             if (result) {
               if (still_holds(result->response)) relies(called_us);
               return hold();
             }
             if (cluster_.tracing()) cluster_.note(owner_ + " did not renew: " + result.error().to_string());
             if (!habits_.over.contains(result.error().code())) return hold();
             cluster_.checkers().holds.released(thing_, owner_);
             completed();
           });
}

void HoldClient::give_up() {
  cluster_.checkers().holds.released(thing_, owner_);
  ask(release(), [this](const Result<machine::Applied>& result, int64_t) {
    if (!result && !habits_.may_end.contains(result.error().code())) {
      wrong("giving up: " + result.error().to_string());
    }
    completed();
  });
}

void HoldClient::completed() {
  --left_;
  after_us(below(habits_.rest_us_max), [this] { next(); });
}

void HoldClient::wrong(const std::string& what) {
  cluster_.checkers().violations.add(habits_.what, owner_ + ": " + what);
}

}  // namespace uccp::sim
