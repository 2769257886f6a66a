// Removes what compactions gave up, one bounded command after the other, on the leader. Re-runnable: what is left to
// remove is in the state, so a new leader goes on.
//
// Thread: the loop's, but for wait_for(), which is callable from any thread.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "base/executor.h"
#include "machine/ports.h"
#include "services/kv/kv_rows.h"

namespace uccp::kv {

// Changes that one command goes through: about a millisecond of the loop.
inline constexpr uint32_t kSweptPerCommand = 100;

class KvSweeper {
 public:
  // Everything must outlive the sweeper, and the sweeper every command it proposes.
  KvSweeper(machine::Proposer& proposer, machine::Reader& reader, Executor& loop, Executor& work)
      : proposer_(proposer), reader_(reader), loop_(loop), work_(work) {}

  // This node leads or no longer does: looks for what an earlier leader left.
  void on_leadership(bool leads);
  // Sweeps the namespace; `done` comes when nothing is left, or with the error that ended it.
  using Done = std::move_only_function<void(Status)>;
  void sweep(const machine::Scope& scope, Done done);

 private:
  void step(const machine::Scope& scope);
  void finish(const machine::Scope& scope, const Status& status);

  machine::Proposer& proposer_;
  machine::Reader& reader_;
  Executor& loop_;
  Executor& work_;
  struct Running {
    std::vector<Done> dones;
    bool again = false;  // asked for since the last step was proposed
  };
  std::map<machine::Scope, Running> running_;
};

}  // namespace uccp::kv
