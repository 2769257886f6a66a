// One stream of Subscribe without a name. See streams.h. Events executor only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "services/events/event_filter.h"
#include "services/events/streams.h"

namespace uccp::events {

class Streams::Stream final : public FeedListener, public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::shared_ptr<Streams> owner, call::CallPtr call, v1::SubscribeRequest request, Cursor since,
         EventFilter filter);

  // Registers with the feed, then finds the topics and where to begin in them.
  void start();
  void on_batch(const BatchPtr& batch) override;
  void on_gap(GroupId group) override;
  void on_changes(GroupId group) override;
  void on_topic(const machine::Scope& scope, const TopicRow& topic, TopicChange change) override;
  void on_stop(const Status& status) override;
  // Every second: sends a sign of life if nothing was sent for a while, and ends if a permission is gone.
  void keep_alive(BootTime now);
  const call::CallPtr& call() const { return call_; }

 private:
  struct Partition {
    std::string topic;
    uint64_t number = 0;
    int64_t ttl_ms = 0;
    bool ephemeral = false;
    bool begun = false;  // `next` is known
    uint64_t next = 0;
    uint64_t read = 0;            // everything below was read, and is sent or held
    uint64_t until = UINT64_MAX;  // with no_follow: the end of what there was at the beginning
  };
  struct Group {
    std::map<PartitionId, Partition> partitions;
    bool asked = false;  // its state was asked for, to find the places to begin at
    bool begun = false;  // they are known
    bool behind = true;  // something may be there that was not sent
    bool held = false;   // until topics are known of which it has events
  };

  // A group whose own changes the stream shows.
  struct SystemGroup {
    ChangeTopics topics;
    LogPlace after;
    LogPlace until{UINT64_MAX, UINT32_MAX, UINT32_MAX};  // with no_follow
    bool begun = false;
    bool behind = true;
  };

  void find_topics(const machine::GroupView& core);
  bool wants(const std::string& name) const;
  // Partitions that the stream has not yet. False: there are too many, and the stream has ended.
  bool add_topic(const TopicRow& topic);
  void begin_groups();
  using BeginAt = void (Stream::*)(GroupId id, const machine::GroupView& view);
  void find_beginning(GroupId id, const machine::ReadLevel& level, BeginAt begin_at);
  void begin_late_partitions();
  // Of a reader of patterns.
  std::optional<KnownTopics> known_topics() const;
  bool reads_patterns() const;
  void hold(Group& group);
  void meet_topics_later(std::function<void()> done);
  void meet_topics(const machine::GroupView& core);
  void begin_group(GroupId id, const machine::GroupView& view);
  uint64_t first_offset(const machine::GroupView& view, GroupId group, PartitionId id) const;
  // stream_system.cc. False: the stream has ended.
  bool find_system_topics();
  bool may_go_on();
  void begin_system_groups();
  void begin_system_group(GroupId id, const machine::GroupView& view);
  bool read_system_group();
  void take_system(GroupId id, Result<SystemRead> read);

  void go_on();
  bool read_on();
  void fetch(GroupId id, Group& group);
  void take(GroupId id, Result<Fetched> fetched);
  void send_fetched(GroupId id, const Fetched& fetched);
  bool send_batch(const Batch& batch, Partition& partition);
  // What is appended to the answer is one item; end_item() adds the number of the attempt.
  std::string& begin_item(size_t event_bytes);
  // False: that was the last one, and the stream has ended.
  bool end_item(size_t event_bytes);
  void flush();
  bool blocked() const { return call_->sink->queued_bytes() > owner_->options_.queue_bytes_max; }
  void wait_for_client();
  void look_at_client();
  void check_end();
  void end(v1::StreamEndReason reason, const std::string& message, Status status = Status::ok());
  void fail(Status status);
  void forget();

  const std::shared_ptr<Streams> owner_;
  const call::CallPtr call_;
  const v1::SubscribeRequest request_;
  const machine::Scope scope_;
  const Cursor since_;
  const EventFilter filter_;
  Cursor cursor_;
  std::map<GroupId, Group> groups_;
  std::map<GroupId, SystemGroup> system_;
  std::set<uint64_t> topics_;  // numbers
  uint64_t known_ = 0;         // the greatest number of a topic that it can have met
  std::set<int32_t> only_partitions_;
  size_t partitions_ = 0;
  size_t beginning_ = 0;  // groups whose state was asked for
  bool system_turn_ = false;
  bool found_ = false;  // the topics were looked up
  bool fetching_ = false;
  bool waiting_ = false;  // for the client
  bool polling_ = false;
  bool paused_ = false;  // after a fetch that failed
  // What was read while the client had enough.
  std::optional<std::pair<GroupId, Fetched>> held_;
  call::MessageRun run_;  // items that the sink has not got yet
  size_t run_event_bytes_ = 0;
  bool sending_much_ = false;
  bool ended_ = false;
  int failures_ = 0;  // of fetches, one after the other
  GroupId last_group_;
  uint64_t sent_ = 0;
  BootTime sent_at_;
};

}  // namespace uccp::events
