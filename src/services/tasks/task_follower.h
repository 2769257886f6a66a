// What GetTaskLogs and StreamResults have in common: one call that follows what the attempts of one task write, stored
// and live. What is written, and how it is sent, is the business of the derived class.
//
// Lives on the `io` executor, which is one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/executor.h"
#include "call/call.h"
#include "machine/ports.h"
#include "services/objects/blob_store.h"
#include "services/tasks/work_runtime.h"

namespace uccp::tasks {

struct LogEnvironment {
  Executor& loop;
  Executor& io;
  WorkRuntime& runtime;
  objects::BlobStore& blobs;
  machine::Watcher& watcher;
  std::function<machine::GroupView()> view;
};

class TaskFollower : public std::enable_shared_from_this<TaskFollower> {
 public:
  TaskFollower(const TaskFollower&) = delete;
  virtual ~TaskFollower() = default;

  // Answers the call of `follower`, at once if there is no such task.
  static void run(const std::shared_ptr<TaskFollower>& follower);

 protected:
  TaskFollower(const LogEnvironment& environment, call::CallPtr call, const std::string& id);

  // Goes on with whatever comes next; called again when the task changed, or the client took what was queued.
  virtual void step() = 0;
  // The subscription that subscribe() asked for; `live`: there is an attempt to hear from.
  virtual void subscribed(bool live) = 0;
  // Of the attempt that the subscription is for.
  virtual void live_chunk(const internal::v1::LogChunk& chunk) = 0;
  // The attempt's agent has no more to say; the subscription is over.
  virtual void live_reply(const internal::v1::LogReply& reply) = 0;
  // The last item of the stream.
  virtual std::string end_item(v1::StreamEndReason reason, const std::string& message) = 0;

  std::optional<internal::v1::TaskRow> row() const;
  // The client has to take what is queued first.
  bool is_blocked() const;
  // A subscription is there or asked for.
  bool is_subscribed() const { return subscription_ != 0 || subscribing_; }
  // Up to `size` bytes of a blob from `offset`; nothing if that ended the call.
  std::optional<std::string> read_blob(const std::string& sha256, uint64_t offset);
  // Asks the agent of the running attempt for what it writes from there on.
  void subscribe(int32_t attempt, const WorkRuntime::LogStart& from);
  // An attempt starts without a change of the replicated task, so a waiting follower looks again now and then.
  void look_again();
  void end(v1::StreamEndReason reason, const std::string& message);
  bool fail(Status status);  // false

  const LogEnvironment env_;
  const call::CallPtr call_;

 private:
  void start(LogIndex watch_since);
  void take_subscription(uint64_t id);
  void take_chunk(const internal::v1::LogChunk& chunk);
  void take_reply(const internal::v1::LogReply& reply);
  void unsubscribe();
  void stop();

  const TaskRef ref_;
  int32_t attempt_ = 0;  // of the subscription
  uint64_t subscription_ = 0;
  bool subscribing_ = false;
  bool looks_again_ = false;
  std::shared_ptr<machine::Watch> watch_;
};

}  // namespace uccp::tasks
