// Transactions over topics: the methods of the contract, what publishers and subscriptions ask before something goes
// into a transaction, and the driver that brings what is decided to all groups that take part.
//
// begin, commit and abort are served by the leader of the coordinating group, get and list by any node. Callable from
// any thread, but for on_leadership(), which is the loop's.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/call.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/events/transaction_rows.h"

namespace uccp::events {

struct TransactionOptions {
  // Events and confirmations, and bytes of events, of one transaction.
  uint64_t events_max = 10'000;
  uint64_t bytes_max = 64u << 20;
  int64_t timeout_default_ms = 60'000;
  int64_t timeout_max_ms = 900'000;
  // Of a tenant, that have not ended.
  uint64_t open_max = 1'000;
  // Events that one command settles: about two milliseconds of the loop.
  uint32_t events_per_settle = 500;
  // Time between two looks at what is decided and not settled.
  int64_t settle_interval_ms = 1'000;
};

class Transactions {
 public:
  // Everything must outlive every call. `local` proposes on this node, `anywhere` to the leader wherever it is.
  struct Environment {
    machine::Proposer& local;
    machine::Proposer& anywhere;
    machine::Reader& reader;
    Executor& loop;
    Executor& work;
    const Clock& clock;
    MetricsRegistry& metrics;
    const call::PageTokenSigner& page_tokens;
    std::function<uint32_t()> feature_level;
  };
  Transactions(TransactionOptions options, Environment environment);

  void add_handlers(call::HandlerTable& handlers);
  // This node leads the coordinating group or no longer does.
  void on_leadership(bool leads);
  // The state of a group that this node leads. Settles what that has of transactions which the coordinator has settled
  // or does not know: groups are read one after the other for a backup, so in a restored cluster they may differ.
  // Callable from any thread.
  void look_for_strays(GroupId group, const machine::GroupView& view);

  // What is about to go into a transaction.
  struct Part {
    std::set<uint32_t> groups;
    uint64_t events = 0;
    uint64_t bytes = 0;
    uint64_t acks = 0;
  };
  // Before it goes: the transaction is open, and knows that these groups take part. `wire` is the validated request,
  // for the request id of the call. Errors: not_found TRANSACTION_NOT_FOUND; failed_precondition TRANSACTION_TOO_LARGE,
  // or how it has ended; those of the proposer.
  using Joined = std::move_only_function<void(Result<TransactionRow>)>;
  void join(const call::CallPtr& call, std::string_view wire, const std::string& id, const Part& part, Joined done);

 private:
  using Done = std::move_only_function<void(Status)>;
  using Named = std::set<std::pair<machine::Scope, uint64_t>>;  // transactions

  void settle_strays(GroupId group, const Named& strays, const machine::GroupView& coordinator);
  void begin(const call::CallPtr& call, std::string bytes);
  void propose_begin(const call::CallPtr& call, const std::string& bytes, internal::v1::TransactionBeginCommand command,
                     bool again);
  void end(const call::CallPtr& call, std::string_view bytes, const std::string& id, bool commit);
  void get(const call::CallPtr& call, const v1::GetTransactionRequest& request);
  void list(const call::CallPtr& call, std::string bytes);

  // Tells all groups how it ended, then the coordinator that they know. `done` comes with OK when it is settled.
  void settle(const machine::Scope& scope, const TransactionRow& row, Done done);
  void settle_in(const machine::Scope& scope, GroupId group, internal::v1::TransactionSettleCommand command, Done done);
  void note_settled(const machine::Scope& scope, uint64_t number);
  void finish(uint64_t number, const Status& status);
  // Settles what nobody waits for any more; looks again after a while.
  void look(uint64_t round);

  const TransactionOptions options_;
  const Environment env_;
  Counter& begun_;
  Counter& committed_;
  Counter& aborted_;
  uint64_t round_ = 0;  // of leaderships; another one ends what an earlier one began
  bool leads_ = false;
  std::map<uint64_t, std::vector<Done>> settling_;  // by number; on the loop
};

}  // namespace uccp::events
