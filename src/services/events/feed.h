// What apply tells of new batches and changed topics on this node, handed to those who read them.
//
// A listener registers first and looks at the state afterwards: whatever is told before it registered is in the state
// that it then finds. Everything happens on the events executor, where the watcher's callbacks come.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "base/executor.h"
#include "machine/ports.h"
#include "services/events/batches.h"
#include "services/events/topics_state.h"

namespace uccp::events {

class Feed;

class FeedListener {
 public:
  FeedListener() = default;
  FeedListener(const FeedListener&) = delete;
  FeedListener& operator=(const FeedListener&) = delete;
  // Takes it out of its feed, should that outlive it: a process that ends destroys listeners that nobody closed.
  virtual ~FeedListener();
  // A new batch of a partition that the listener named.
  virtual void on_batch(const BatchPtr& batch) = 0;
  // A transaction that held deliveries of a partition that the listener named has ended.
  virtual void on_released(GroupId) {}
  // The state of a group was replaced: batches may have been missed.
  virtual void on_gap(GroupId group) = 0;
  // There may be more of the changes of a group that the listener named.
  virtual void on_changes(GroupId) {}
  // A topic was made, changed or deleted, in any namespace.
  virtual void on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) = 0;
  // The node stops.
  virtual void on_stop(const Status& status) = 0;

 private:
  friend class Feed;
  Feed* feed_ = nullptr;  // where it is registered
  uint64_t number_ = 0;   // in the order in which they were added, which is the order in which they are told
};

class Feed {
 public:
  // Everything must outlive the feed and its listeners. Groups are bus-0 to bus-(groups - 1); one is listened to while
  // somebody reads there, so that what nobody reads costs its publishers nothing.
  Feed(machine::Watcher& watcher, Executor& events, uint32_t groups);
  ~Feed();
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  // Begins to listen to changes of topics. Callable from any thread.
  void start();

  // On the events executor.
  void add(FeedListener* listener);
  void remove(FeedListener* listener);
  void read(FeedListener* listener, GroupId group, PartitionId id);
  void unread(FeedListener* listener, GroupId group, PartitionId id);
  // Tells the listener of changes that a group emits to `topic`. Watched only while somebody listens.
  void follow(FeedListener* listener, GroupId group, const std::string& topic);
  // The listener reads patterns and knows the topics up to this number. Events of later ones say to all that there may
  // be more than they were told: this node hears of a topic's events before it hears of the topic.
  void knows(FeedListener* listener, uint64_t topic);
  uint32_t groups() const { return groups_; }

 private:
  using Listeners = std::map<uint64_t, FeedListener*>;  // by number
  struct Followed {
    Listeners listeners;
    std::shared_ptr<machine::Watch> watch;
  };

  void watch_group(GroupId group);
  void watch_topics();
  void watch_changes(GroupId group, const std::string& topic);
  void tell_changes(GroupId group, const std::string& topic);
  bool on_change(GroupId group, const machine::Change& change);
  bool on_topic(const machine::Change& change);
  void tell_gap(GroupId group);
  void on_lost(GroupId group, const Status& status);

  machine::Watcher& watcher_;
  Executor& events_;
  const uint32_t groups_;
  std::map<GroupId, std::shared_ptr<machine::Watch>> watches_;
  uint64_t last_number_ = 0;
  std::set<uint64_t> pattern_readers_;  // numbers
  uint64_t topics_known_ = 0;           // to all of them
  Listeners listeners_;
  std::map<std::pair<GroupId, PartitionId>, Listeners> readers_;
  std::map<std::pair<GroupId, std::string>, Followed> followed_;
};

}  // namespace uccp::events
