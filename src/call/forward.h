// Forwarding: a call that another node has to serve is handed to that node, below the pipeline and at most one hop.
//
// The entry node has authenticated, validated and authorized the call and vouches for its principal. Mutations and
// reads of what only a leader has in memory go to the leader of the group that owns the method; everything else is
// served where it came in. Invariants: a call is sent again only if nothing of it can have been executed, or repeating
// it changes nothing more (it reads, is naturally idempotent, or carries a request id); a stream that has answered
// anything is never begun again; the entry node's word about a caller counts only as long as this node knows nothing
// newer.
// Thread: callable from any thread; retries run on the executor given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/executor.h"
#include "base/ids.h"
#include "base/metrics.h"
#include "call/call.h"
#include "call/handler.h"
#include "call/method.h"

namespace uccp::call {

// Name of the metadata that says, between the nodes, that the call has been parked: Call::begin_waiting().
inline constexpr std::string_view kWaitingMark = ":waiting";

// Their requests say where they are served.
inline constexpr std::string_view kProposeMethod = "uccp.internal.v1.NodeLink/Propose";
inline constexpr std::string_view kSubscribeMethod = "uccp.v1.EventBus/Subscribe";

// Where a method is served. One table for the whole contract.
struct Placement {
  GroupId group = kCoreGroup;
  bool leader_only = false;
};
Placement placement_of(const Method& method);
// The same for one call, where the request decides: a command for a group, a stream of a subscription with a name.
Placement placement_of(const Method& method, std::string_view request);

// A stream of messages to another node.
class ForwardStream {
 public:
  virtual ~ForwardStream() = default;
  virtual void send(std::string message) = 0;
  virtual size_t queued_bytes() const = 0;
  virtual void half_close() = 0;
  virtual void cancel() = 0;
};

struct ForwardEvents {
  std::move_only_function<void(std::string message)> on_message;
  std::move_only_function<void(Status status)> on_done;  // exactly once, last
};

// What forwarding needs to know and reach. Callable from any thread.
class ForwardPort {
 public:
  virtual ~ForwardPort() = default;
  // This node leads the group and its state is current.
  virtual bool leads(GroupId group) const = 0;
  // The leader as far as this node knows; 0: none. May be this node, which is not ready yet then.
  virtual NodeId leader(GroupId group) const = 0;
  // Begins uccp.internal.v1.NodeLink/Forward on that node; null if its address is not known. No callback comes before
  // the caller has returned from open().
  virtual std::shared_ptr<ForwardStream> open(NodeId to, ForwardEvents events) = 0;
};

struct ForwarderOptions {
  // How long a call waits for a leader that can serve it, within its own deadline.
  int64_t patience_ms = 5'000;
  int64_t pause_ms_min = 50;
  int64_t pause_ms_max = 200;
};

// The entry side: handlers for the doors that forward to the leader, made around the node's own handlers.
class Forwarder {
 public:
  // Everything must outlive the forwarder, which must outlive every call. `local` must be complete.
  Forwarder(const HandlerTable& local, ForwardPort& port, Executor& timers, const Clock& clock,
            MetricsRegistry& metrics, ForwarderOptions options = {});

  // Adds a handler for each method that `local` has one for and `doors` has not.
  void add_handlers(HandlerTable& doors);

 private:
  class Attempt;
  class UnaryForward;
  class StreamForward;
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

// The serving side: NodeLink/Forward. Only nodes of the cluster may call it.
class ForwardService {
 public:
  // Decides once more about a call that the entry node allowed by older policies than those in force here; its
  // principal becomes what it is by now. Callable from any thread.
  using AuthorizeAgain = std::function<Status(Call& call, const std::string& request)>;

  ForwardService(const HandlerTable& local, ForwardPort& port, const Clock& clock, AuthorizeAgain authorize_again)
      : local_(local), port_(port), clock_(clock), authorize_again_(std::move(authorize_again)) {}
  void add_handlers(HandlerTable& handlers);

 private:
  class Session;
  const HandlerTable& local_;
  ForwardPort& port_;
  const Clock& clock_;
  const AuthorizeAgain authorize_again_;
};

}  // namespace uccp::call
