// Hands applied changes to watchers, on an executor of its own so that a thousand watchers do not hold up the loop.
//
// A watch first gets the changes behind its cursor that are still in the state, then the live ones; the published state
// is always at least as new as what was handed to publish(), so there is no gap, and the index tells repeats.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"

namespace uccp::node {

class ChangeHub {
 public:
  // `state` answers the newest published view of a group; called on the hub's executor.
  using State = std::function<machine::GroupView(GroupId)>;
  ChangeHub(Executor& executor, State state, MetricsRegistry& metrics);

  // From the loop, in order of index within a group.
  void publish(GroupId group, std::vector<machine::Change> changes);
  std::shared_ptr<machine::Watch> watch(const machine::WatchFilter& filter, LogIndex since,
                                        machine::Watcher::OnChange on_change, machine::Watcher::OnEnd on_end);
  // The published state of the group jumped ahead without publish(): its watches go on from what the state kept.
  void resync(GroupId group);
  // Ends all watches with `status`.
  void close(Status status);

 private:
  struct Subscription;
  using Topic = std::pair<GroupId, std::string>;
  // Which topics are watched, so that the loop neither wakes the executor nor hands over what nobody looks at.
  class Interest {
   public:
    void add(const Topic& topic);
    void remove(const Topic& topic);
    // Leaves the changes that somebody may want.
    void filter(GroupId group, std::vector<machine::Change>& changes) const;

   private:
    mutable std::mutex mutex_;
    std::map<Topic, size_t> watches_;
  };
  void start(std::shared_ptr<Subscription> subscription);
  void deliver_backlog(const std::shared_ptr<Subscription>& subscription);
  static bool matches(const Subscription& subscription, const machine::Change& change);
  void deliver(const std::shared_ptr<Subscription>& subscription, const machine::Change& change);
  void end(const std::shared_ptr<Subscription>& subscription, Status status);

  Executor& executor_;
  State state_;
  Gauge& watchers_;
  const std::shared_ptr<Interest> interest_ = std::make_shared<Interest>();  // watches may outlive the hub
  // Hub executor only.
  std::map<Topic, std::vector<std::shared_ptr<Subscription>>> subscriptions_;
  std::map<GroupId, LogIndex> published_;
  bool closed_ = false;
};

}  // namespace uccp::node
