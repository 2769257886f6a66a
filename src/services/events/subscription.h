// One subscription with a name, on the leader of core: what of each partition is confirmed, what is delivered and not
// confirmed, and who gets what. Events executor only.
//
// At least once: the place in a partition is committed to its bus group, in the background and before an
// acknowledgement is answered. What was in flight when the leader changed is delivered again by the next one.
//
// Shared by key, each partition belongs to one member, and stays with it when others come and go as far as the load
// allows. A partition that changes hands is served to the new member only when the old one has nothing of it in flight
// any more.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "call/call.h"
#include "services/events/event_filter.h"
#include "services/events/feed.h"
#include "services/events/subscription_env.h"
#include "services/events/transaction_rows.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

// Who takes deliveries: a stream, or a pull while it waits.
struct Member {
  uint64_t id = 0;
  call::CallPtr call;
  bool pull = false;
  bool manual = true;  // confirms by AckEvents
  size_t in_flight_max = 100;
  size_t in_flight = 0;
  uint64_t limit = 0;  // 0: none
  uint64_t sent = 0;
  bool follow = true;                     // false: the stream ends when what there was at the beginning is sent
  std::map<PartitionId, uint64_t> until;  // then: the end of each partition at the beginning
  bool ended = false;                     // the stream has all that it asked for
  v1::PullEventsResponse pulled;
  BootTime sent_at;
};
using MemberPtr = std::shared_ptr<Member>;

// Another node serves the subscription, or this one does so anew.
Status leader_moved();
// Whether the subscription reads the partition of its topics.
bool reads_partition(const SubscriptionRow& row, uint32_t partition);

class Subscription final : public FeedListener, public std::enable_shared_from_this<Subscription> {
 public:
  Subscription(const SubscriptionEnvironment& environment, machine::Scope scope, SubscriptionRow row,
               EventFilter filter);

  // Looks up topics and positions; `done` comes when deliveries may begin, or with why they cannot.
  using Done = std::move_only_function<void(Status)>;
  void load(Done done);
  void join(const MemberPtr& member);
  // The client went away or has enough. What a stream that was cut off had in flight is delivered again at once.
  void leave(const MemberPtr& member);
  // Answers the ids that mean nothing any more. `done` comes when what was confirmed is committed.
  std::vector<std::string> ack(const std::vector<std::string>& ids, Done done);
  std::vector<std::string> nack(const std::vector<std::string>& ids, int64_t delay_ms, bool dead_letter);
  // Moves the places in the named partitions; forgets what was delivered of them.
  void seek(const std::map<PartitionId, uint64_t>& places, Done done);
  // Deliveries that a transaction confirms: all of them or none. What ack() does at once happens when it is committed.
  struct Named {
    std::set<uint32_t> groups;  // of their partitions, by number
    uint64_t fresh = 0;         // of them, those that the transaction has not confirmed yet
  };
  // Errors: failed_precondition ACK_EXPIRED; unavailable LEADER_MOVED.
  Result<Named> named(const std::vector<std::string>& ids, uint64_t transaction) const;
  // Errors: as above; failed_precondition if the transaction has ended; those of the proposer.
  void hold(const std::vector<std::string>& ids, const TransactionRow& transaction, Done done);
  // Somebody else serves it now.
  void fenced();
  bool closed() const { return closed_; }
  // Ends all streams; nothing is delivered afterwards.
  void close(v1::StreamEndReason reason, const Status& status);

  const SubscriptionRow& row() const { return row_; }
  const machine::Scope& scope() const { return scope_; }
  // Group and topic of each partition that it reads.
  std::map<PartitionId, std::pair<GroupId, std::string>> partitions() const;
  size_t in_flight() const;
  size_t members() const { return members_.size(); }

  void on_batch(const BatchPtr& batch) override;
  void on_released(GroupId group) override { look_at_held(group); }
  void on_gap(GroupId group) override;
  void on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) override;
  void on_stop(const Status& status) override;

 private:
  struct Item {
    BatchPtr batch;
    size_t number = 0;
    uint64_t offset = 0;
    uint32_t attempts = 0;  // deliveries so far
  };
  struct InFlight {
    Item item;
    MemberPtr member;
    BootTime deadline;
  };
  // Confirmed in a transaction that has not ended as far as this server knows.
  struct HeldDelivery {
    std::optional<Item> item;  // absent: it was not read since the subscription was loaded
    uint64_t transaction = 0;
    std::string producer;
  };
  struct Partition {
    GroupId group;
    std::string topic;
    uint64_t topic_number = 0;
    int64_t ttl_ms = 0;
    uint64_t committed = 0;  // all below is confirmed
    std::set<uint64_t> above;
    std::map<uint64_t, uint64_t> gaps;  // from and to behind it, of offsets that compaction left no event for
    uint64_t seeks = 0;
    std::map<uint64_t, uint32_t> attempts;
    uint64_t next = 0;  // to be read
    uint64_t end = 0;   // of what was published, as far as it was told
    std::deque<Item> ready;
    std::multimap<BootTime, Item> delayed;
    std::map<uint64_t, InFlight> in_flight;
    std::map<uint64_t, HeldDelivery> held;
    uint64_t moves = 0;  // seeks so far
    MemberPtr owner;
    bool known = false;  // its place was looked up
    bool behind = true;
    bool fetching = false;
  };
  struct Commit {
    std::set<PartitionId> dirty;
    std::vector<Done> waiting;
    bool under_way = false;
  };

  bool wants(const std::string& topic) const;
  void add_topic(const TopicRow& topic);
  void find_places(Done done);
  void find_new_places();
  void claim(GroupId group, Done done);
  void take_place(const PartitionId& id, Partition& partition, const machine::GroupView& view);
  void take_held(const std::set<PartitionId>& fresh, const machine::GroupView& view);
  void propose_hold(GroupId group, internal::v1::TransactionHoldCommand command, Done done);
  void look_at_held(GroupId group);
  void look_at_all_held(BootTime now);
  void settle_held(GroupId group, const machine::GroupView& view);
  void release(const PartitionId& id, Partition& partition, uint64_t offset);
  void assign();
  MemberPtr target(const Partition& partition);
  void pump();
  void fetch(GroupId group);
  void take(Result<Fetched> fetched);
  void add_items(const PartitionId& id, Partition& partition, const BatchPtr& batch);
  bool deliver(const PartitionId& id, Partition& partition);
  void send(const PartitionId& id, const Partition& partition, const Item& item, Member& member);
  void finish_pulls();
  void finish_caught_up();
  // What the member was to get of its partitions is sent.
  bool caught_up(const MemberPtr& member) const;
  void end_stream(const MemberPtr& member, v1::StreamEndReason reason, const std::string& message);
  void reply_pull(const MemberPtr& member);
  void confirm(const PartitionId& id, Partition& partition, uint64_t offset);
  // There is nothing in the partition from where it is read up to `offset`.
  void skip_to(const PartitionId& id, Partition& partition, uint64_t offset);
  static void advance(Partition& partition);
  void give_back(const PartitionId& id, Partition& partition, Item item, int64_t delay_ms);
  void bury(const PartitionId& id, Item item, const std::string& reason);
  void failed(const PartitionId& id, Partition& partition, Item item, int64_t delay_ms, const std::string& reason,
              bool dead_letter);
  void mark_dirty(const PartitionId& id, const Partition& partition);
  void commit(GroupId group);
  void tick();
  void schedule_tick();
  std::string ack_id(const PartitionId& id, const Item& item) const;
  struct AckName {
    PartitionId id;
    uint64_t offset = 0;
    uint64_t attempts = 0;
    uint64_t epoch = 0;
  };
  static std::optional<AckName> parse_ack_id(const std::string& ack_id);
  // The delivery that the id names, if it is the last one of its event.
  std::optional<std::pair<PartitionId, uint64_t>> find_delivery(const std::string& ack_id) const;
  // Takes each delivery that an id names out of flight and hands it to `each`(partition id, partition, delivery's key
  // and value). Returns the ids that name none any more.
  template <typename Each>
  std::vector<std::string> take_deliveries(const std::vector<std::string>& ids, Each each);
  int64_t ack_timeout_ms() const;
  // Events that are not confirmed.
  uint64_t backlog() const;

  SubscriptionEnvironment env_;
  const machine::Scope scope_;
  const SubscriptionRow row_;
  const EventFilter filter_;
  uint64_t epoch_;     // of ack ids
  uint64_t term_ = 0;  // of those who serve the subscription, one after the other; positions know the greatest
  Gauge& backlog_;
  std::map<PartitionId, Partition> partitions_;
  std::map<GroupId, Commit> commits_;
  std::vector<MemberPtr> members_;  // in the order of joining
  uint64_t last_member_ = 0;
  size_t turn_ = 0;
  bool closed_ = false;
  bool tick_scheduled_ = false;
  bool pump_scheduled_ = false;
  BootTime held_looked_at_;
};

}  // namespace uccp::events
