// Forgets producers that nobody has heard of for long, so that what is known of them does not gather: the sequences of
// those that publish exactly once, and epochs, transactions and guards of those that have transactions.
//
// Thread: look() is the loop's; rows are looked at on the work executor.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/clock.h"
#include "services/events/compactor.h"

namespace uccp::events {

struct SilentProducersOptions {
  // Machine time.
  int64_t idle_ms = int64_t{7} * 24 * 3600 * 1000;
  // Rows that one look forgets, and one command of it: about a millisecond of the loop.
  size_t rows_per_look = 10'000;
  int rows_per_command = 500;
};

class SilentProducers {
 public:
  SilentProducers(SilentProducersOptions options, const LogWorkEnvironment& environment, const Clock& clock);

  // The state of a group that this node leads, and its machine time. Looks at it every tenth of the time after which
  // somebody is forgotten, at least every ten minutes; `leads` answers whether this node still leads the group.
  void look(GroupId group, const machine::GroupView& view, int64_t now_ms, std::function<bool()> leads);

 private:
  struct Pass;
  using PassPtr = std::shared_ptr<Pass>;

  void collect(const PassPtr& pass, const machine::GroupView& view, int64_t before_ms);
  void propose(const PassPtr& pass);

  const SilentProducersOptions options_;
  const LogWorkEnvironment env_;
  const Clock& clock_;
  Counter& forgotten_;
  std::map<GroupId, BootTime> looked_at_;
};

}  // namespace uccp::events
