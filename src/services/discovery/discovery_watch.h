// One open WatchServices: first the instances that are there, then every change behind them, without gaps.
//
// The initial rows go out in chunks as fast as the client takes them; live changes are not waited for: a client that
// leaves too much in its queue is cut off with the cursor to go on from. An instance that an update takes out of the
// label selector is reported as removed. A cursor is "GROUP.INDEX"; index 0 means "begin again".
//
// Lives as long as its call. At any time one thread works on it: first the work executor, then the watcher's.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "call/call.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/discovery/discovery_state.h"
#include "services/discovery/presence.h"

namespace uccp::discovery {

// A client with more than this waiting for it is too slow for live changes.
inline constexpr size_t kWatchQueueBytesMax = 4u << 20;
// The initial rows wait while more than this is queued, and give up when nothing moved for so long.
inline constexpr size_t kInitialQueueBytesMax = 1u << 20;
inline constexpr int64_t kInitialStallMsMax = 30'000;

class ServiceWatch : public std::enable_shared_from_this<ServiceWatch> {
 public:
  // Everything must outlive the call.
  struct Environment {
    machine::Reader& reader;
    machine::Watcher& watcher;
    Executor& work;
    const Clock& clock;
    const Presence& presence;
  };
  // Errors: invalid SELECTOR_INVALID, CURSOR_INVALID.
  static Result<std::shared_ptr<ServiceWatch>> make(const call::CallPtr& call, const v1::WatchServicesRequest& request,
                                                    const Environment& environment);
  void start();

 private:
  ServiceWatch(const call::CallPtr& call, const Environment& environment) : call_(call), env_(environment) {}

  void begin(const machine::ReadLevel& level);
  void send_initial();
  void wait_for_drain();
  void follow(LogIndex since);
  bool on_change(const machine::Change& change);
  void send_event(ChangeKind kind, std::string_view row);
  // Sends the last item and ends the call.
  void end(Status status);
  bool wanted(std::string_view row) const;

  const call::CallPtr call_;
  const Environment env_;
  Scope scope_;
  std::string name_;
  call::LabelSelector labels_;
  LogIndex since_;
  std::string cursor_;       // of the last item
  machine::GroupView view_;  // while the initial rows are sent
  std::string position_;     // of the last initial row
  size_t stalled_bytes_ = 0;
  BootTime stalled_since_;
  std::shared_ptr<machine::Watch> watch_;
};

}  // namespace uccp::discovery
