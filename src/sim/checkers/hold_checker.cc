#include "sim/checkers/hold_checker.h"

#include <algorithm>

namespace uccp::sim {

void HoldChecker::holds(const std::string& name, const std::string& owner, int64_t sent_us, int64_t ttl_ms,
                        int64_t now_us) {
  const int64_t until_us = sent_us + ttl_ms * 1000 * 1'000'000 / (1'000'000 + drift_ppm_max_);
  if (until_us <= now_us) return;  // too late to rely on
  Hold& hold = holds_[name];
  if (hold.owner != owner && hold.until_us > now_us) {
    violations_.add("holds", owner + " was given " + name + " at " + std::to_string(now_us) + " us, which " +
                                 hold.owner + " holds until " + std::to_string(hold.until_us) + " us");
  }
  if (hold.owner == owner) hold.until_us = std::max(hold.until_us, until_us);
  else hold = {owner, until_us};
}

void HoldChecker::released(const std::string& name, const std::string& owner) {
  const auto found = holds_.find(name);
  if (found != holds_.end() && found->second.owner == owner) holds_.erase(found);
}

void HoldChecker::granted(const std::string& kind, uint64_t position, uint64_t token) {
  auto& tokens = tokens_[kind];
  const auto [it, first] = tokens.try_emplace(position, token);
  const bool grows = it == tokens.begin() || std::prev(it)->second < token;
  const bool passed = std::next(it) != tokens.end() && std::next(it)->second <= token;
  if (it->second == token && grows && !passed) return;
  violations_.add("fencing", "the token " + std::to_string(token) + " of a grant of " + kind + " at index " +
                                 std::to_string(position >> 16) + " is not greater than those before it, or changed");
}

void HoldChecker::shown(const std::string& kind, uint64_t token, const std::string& owner) {
  const auto [it, first] = owners_.try_emplace({kind, token}, owner);
  if (first || it->second == owner) return;
  violations_.add("fencing", "the token " + std::to_string(token) + " of " + kind + " was given to " + it->second +
                                 " and to " + owner);
}

}  // namespace uccp::sim
