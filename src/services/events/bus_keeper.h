// Keeps the groups bus-* clean, on their leaders: drops partitions whose topic is gone, and what the retention of the
// others gives up, gives offsets to scheduled events whose time has come, and says what is to be compacted, when the
// log is to be cleaned, and when producers and strays of transactions are to be looked for. Re-runnable: what there is
// to do is found in the states, so a new leader goes on.
//
// Thread: the loop's, but for drop(), which is callable from any thread.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "machine/ports.h"
#include "services/events/bus_rows.h"
#include "services/events/compactor.h"
#include "services/events/log_cleaner.h"
#include "services/events/silent_producers.h"
#include "services/events/topics_state.h"
#include "services/events/transactions.h"

namespace uccp::events {

struct BusKeeperOptions {
  // Time between two looks at everything.
  int64_t interval_ms = 10'000;
  // Rows that one command goes through: about a millisecond of the loop.
  uint32_t rows_per_command = 500;
  // Partitions that one command looks at.
  int partitions_per_command = 256;
  // Time between two looks at what is scheduled: how late an event may be.
  int64_t release_interval_ms = 100;
  uint32_t events_per_release = 200;
};

class BusKeeper {
 public:
  // Everything must outlive the keeper, and the keeper every command it proposes. `local` proposes on this node,
  // `anywhere` to the leader wherever it is.
  BusKeeper(BusKeeperOptions options, machine::Proposer& local, machine::Proposer& anywhere, machine::Reader& reader,
            Executor& loop, Executor& work, const Clock& clock, Compactor& compactor, LogCleaner& cleaner,
            SilentProducers& producers, Transactions& transactions);

  // This node leads the group or no longer does.
  void on_leadership(GroupId group, bool leads);
  // Forgets all partitions of a topic that was deleted, in all its groups.
  using Done = std::move_only_function<void(Status)>;
  void drop(const machine::Scope& scope, const TopicRow& topic, Done done);

 private:
  bool current(GroupId group, uint64_t round) const;
  void look(GroupId group, uint64_t round);
  void release(GroupId group, uint64_t round);
  // A state, and for how long it was the newest one: machine time stands still while nothing is applied.
  struct Seen {
    LogIndex applied;
    BootTime since;
  };

  int64_t machine_time_now(GroupId group, const machine::GroupView& bus);
  void clean(GroupId group, uint64_t round, const machine::GroupView& bus, const machine::GroupView& core,
             int64_t now_ms);
  void trim(GroupId group, const machine::Scope& scope, internal::v1::BusTrimCommand command);
  void drop_in(machine::Proposer& proposer, GroupId group, const machine::Scope& scope, uint64_t topic, Done done);

  const BusKeeperOptions options_;
  machine::Proposer& local_;
  machine::Proposer& anywhere_;
  machine::Reader& reader_;
  Executor& loop_;
  Executor& work_;
  const Clock& clock_;
  Compactor& compactor_;
  LogCleaner& cleaner_;
  SilentProducers& producers_;
  Transactions& transactions_;
  std::map<GroupId, Seen> seen_;
  std::map<GroupId, uint64_t> rounds_;  // of groups that this node leads; another round ends the earlier one
  uint64_t last_round_ = 0;
};

}  // namespace uccp::events
