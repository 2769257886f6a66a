#include "agent/hosted_actor.h"

#include <algorithm>

#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr int64_t kOwnerChecks = 4;  // in the time that an actor lives without its owners

}  // namespace

HostedActor::HostedActor(Executor& loop, ActorLimits limits, int64_t owner_timeout_ms, Hooks hooks)
    : loop_(loop), owner_timeout_ms_(owner_timeout_ms), hooks_(std::move(hooks)), calls_(limits, hooks_.answer) {
  if (owner_timeout_ms_ > 0) watch_owner();
}

void HostedActor::end() {
  *alive_ = false;
  loop_.cancel(owner_timer_);
}

// Looks now and then; without owners at each look of a whole timeout, the actor is over.
void HostedActor::watch_owner() {
  const int64_t step_ms = std::max<int64_t>(1, owner_timeout_ms_ / kOwnerChecks);
  owner_timer_ = loop_.post_after(step_ms, [this, step_ms, alive = alive_] {
    if (!*alive) return;
    ownerless_ms_ = calls_.owned() ? 0 : ownerless_ms_ + step_ms;
    if (ownerless_ms_ < owner_timeout_ms_) return watch_owner();
    hooks_.abandoned("no owner of the actor was connected for " + std::to_string(owner_timeout_ms_) + " ms");
  });
}

void HostedActor::request(uint64_t channel, std::string_view data) {
  v1::ActorRequest request;
  if (!request.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
    log::warn("a call of an actor is malformed", {{"channel", channel}});
    return;
  }
  calls_.request(channel, request);
  feed();
}

void HostedActor::packet(char kind, std::string_view body) {
  if (kind == 'A') ready_ = true;
  if (kind == 'M') calls_.results(body);
  feed();
}

// Hands over what the process takes now.
void HostedActor::feed() {
  if (!ready_) return;
  while (auto packet = calls_.next_packet()) {
    if (!hooks_.send('M', *packet).is_ok()) return;
  }
  if (const std::string credits = calls_.take_credits(); !credits.empty()) (void)hooks_.send('G', credits);
}

}  // namespace uccp::agent
