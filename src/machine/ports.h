// How services reach the replicated state. `node` implements these.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "machine/domain.h"
#include "machine/envelope.h"
#include "machine/key_reader.h"
#include "machine/read_level.h"

namespace uccp::machine {

struct Applied {
  LogIndex index;
  std::string response;
};

// Callbacks come on the loop thread, exactly once.
class Proposer {
 public:
  using Done = std::move_only_function<void(Result<Applied>)>;
  virtual ~Proposer() = default;
  // Commits the command and applies it. Stamps the envelope's clocks and feature level. Callable from any thread.
  // Errors before anything was logged: exhausted OVERLOADED, not_leader, unavailable. Afterwards: the command's own
  // result, or outcome_unknown if the node lost track of it.
  virtual void propose(GroupId group, Envelope envelope, Done done) = 0;
};

class Reader {
 public:
  using Done = std::move_only_function<void(Result<GroupView>)>;
  virtual ~Reader() = default;
  // A view that satisfies `level`. Callable from any thread; `done` may run before read() returns, on any thread.
  virtual void read(GroupId group, const ReadLevel& level, Done done) = 0;
};

// A subscription to changes. Destroying it ends it; no callback runs afterwards.
class Watch {
 public:
  virtual ~Watch() = default;
};

struct WatchFilter {
  GroupId group = kCoreGroup;
  std::string topic;
  std::string tenant;      // empty: all; only the system itself watches so
  std::string name_space;  // empty: all of the tenant
  // For topics of ApplyContext::notify: begins with the next change, and ends with CURSOR_COMPACTED when changes were
  // missed because the state was replaced.
  bool live_only = false;
};

class Watcher {
 public:
  virtual ~Watcher() = default;
  // Delivers every matching change with index > `since`, in order, without gaps. on_change returns false to end.
  // on_end: failed_precondition CURSOR_COMPACTED (start over), exhausted WATCHER_TOO_SLOW (resume with the last
  // cursor), unavailable SHUTTING_DOWN. Callbacks come on one thread.
  using OnChange = std::move_only_function<bool(const Change&)>;
  using OnEnd = std::move_only_function<void(Status)>;
  virtual std::shared_ptr<Watch> watch(const WatchFilter& filter, LogIndex since, OnChange on_change, OnEnd on_end) = 0;
};

// Leases of a group that this node leads. Callbacks as Proposer's.
class Leases {
 public:
  using Done = std::move_only_function<void(Result<int64_t>)>;
  virtual ~Leases() = default;
  // Extends the lease by its ttl, counted from now; answers the ttl in milliseconds once leadership is confirmed.
  // Errors: not_found LEASE_EXPIRED, not_leader.
  virtual void keep_alive(GroupId group, LeaseId lease, Done done) = 0;
  // Milliseconds until the lease is due, at least 0. Errors as above.
  virtual void time_left(GroupId group, LeaseId lease, Done done) = 0;
};

}  // namespace uccp::machine
