// A machine with the lock state and no raft, for tests: applies commands, lets leases end as time goes on, and checks
// the digest and the invariants of the state after every command.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "machine/test_lab.h"
#include "services/locks/locks_state.h"
#include "services/locks/locks_tree.h"

namespace uccp::locks {

inline constexpr auto kLock = internal::v1::PERMIT_KIND_LOCK;
inline constexpr auto kSemaphore = internal::v1::PERMIT_KIND_SEMAPHORE;
using machine::kLabScope;

class LockLab : public machine::MachineLab<LocksState> {
 public:
  std::vector<internal::v1::PermitHolder> holders(internal::v1::PermitKind kind, std::string_view name) const {
    std::vector<internal::v1::PermitHolder> out;
    scan_holders(view(), kLabScope, row(kind, name).value_or(internal::v1::PermitRow()),
                 [&](internal::v1::PermitHolder h) {
                   out.push_back(std::move(h));
                   return true;
                 });
    return out;
  }
  std::vector<internal::v1::PermitWaiter> waiters(internal::v1::PermitKind kind, std::string_view name) const {
    std::vector<internal::v1::PermitWaiter> out;
    scan_waiters(view(), kLabScope, row(kind, name).value_or(internal::v1::PermitRow()),
                 [&](internal::v1::PermitWaiter w) {
                   out.push_back(std::move(w));
                   return true;
                 });
    return out;
  }
  std::optional<internal::v1::PermitRow> row(internal::v1::PermitKind kind, std::string_view name) const {
    return find_permits(view(), kLabScope, kind, name);
  }

  // What always holds between two commands.
  void check(internal::v1::PermitKind kind, const std::string& name) {
    const auto r = row(kind, name);
    const auto held_by = holders(kind, name);
    const auto queue = waiters(kind, name);
    if (!r) {
      EXPECT_TRUE(held_by.empty() && queue.empty()) << name << " has no row";
      return;
    }
    int32_t held = 0;
    for (const auto& holder : held_by) {
      held += holder.permits();
      EXPECT_TRUE(has_deadline(holder.lease())) << name << ": a holder without a lease";
      uint64_t& greatest = greatest_token_[name];
      if (token_of_.try_emplace(holder.lease(), 0).first->second == holder.fencing_token()) continue;
      token_of_[holder.lease()] = holder.fencing_token();
      EXPECT_GT(holder.fencing_token(), before_[name]) << name << ": tokens only grow";
      greatest = std::max(greatest, holder.fencing_token());
    }
    before_[name] = greatest_token_[name];
    // Nothing lies before the first one that the row names.
    size_t holder_rows = 0, waiter_rows = 0;
    kHolders.scan(view(), kLabScope, permit_key(kind, name), "", [&](auto, auto) { return ++holder_rows > 0; });
    kWaiters.scan(view(), kLabScope, permit_key(kind, name), "", [&](auto, auto) { return ++waiter_rows > 0; });
    EXPECT_EQ(holder_rows, held_by.size());
    EXPECT_EQ(waiter_rows, queue.size());
    EXPECT_EQ(held, r->held());
    EXPECT_LE(held, r->capacity()) << name;
    EXPECT_EQ(static_cast<int>(held_by.size()), r->holders());
    EXPECT_EQ(static_cast<int>(queue.size()), r->waiters());
    for (const auto& waiter : queue) EXPECT_TRUE(has_deadline(waiter.lease())) << name << ": a waiter without a lease";
    // Nobody waits for what is free.
    if (!queue.empty() && queue[0].holder().permits() <= r->capacity() - held) {
      EXPECT_TRUE(hindered(view(), kLabScope, name, queue[0].holder(), {queue[0].rank(), queue[0].id()}))
          << name << ": the head could be served";
    }
    check_across(kind, name, held_by);
  }

  // Of two holds that are in each other's way there is only one, whatever the names.
  void check_across(internal::v1::PermitKind kind, const std::string& name,
                    const std::vector<internal::v1::PermitHolder>& held_by) {
    if (kind != kLock) return;
    for (const auto& holder : held_by) {
      for (const std::string& above : names_above(name)) {
        for (const auto& other : holders(kLock, above)) {
          const bool both_shared = other.permits() < kLockPermits && holder.permits() < kLockPermits;
          const bool own = other.owner() == holder.owner() && other.reentrant() && holder.reentrant();
          EXPECT_TRUE(!other.tree() || both_shared || own) << name << " is held under " << above;
        }
      }
    }
  }

 private:
  std::map<machine::LeaseId, uint64_t> token_of_;
  std::map<std::string, uint64_t> greatest_token_, before_;
};

}  // namespace uccp::locks
