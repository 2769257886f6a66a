// Channels between callers and running actors, on the leader: which caller speaks to which attempt.
//
// The leader only carries the messages. A channel waits until the actor's attempt has started, tells its peer so, and
// ends with the attempt, with the agent's stream or with the leadership; the peer then opens another one and repeats
// what had no answer. Loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/status.h"
#include "services/tasks/agent_session.h"
#include "services/tasks/scheduler.h"
#include "uccp/internal/v1/work_state.pb.h"
#include "uccp/v1/types.pb.h"

namespace uccp::tasks {

// The caller's end of a channel. Called on the loop.
class ActorPeer {
 public:
  virtual ~ActorPeer() = default;
  // The object is there; calls may be sent now.
  virtual void attached(int32_t incarnation) = 0;
  // A serialized v1::ActorReply. False: it takes no more, and the channel is over.
  virtual bool answered(const std::string& data) = 0;
  virtual void ended(v1::StreamEndReason reason, const std::string& why) = 0;
  virtual void failed(const Status& status) = 0;
};

class ActorChannels {
 public:
  using Row = internal::v1::TaskRow;

  uint64_t open(const TaskRef& ref, std::shared_ptr<ActorPeer> peer);
  // Errors: exhausted AGENT_BUSY, failed_precondition ACTOR_NOT_ATTACHED.
  Status send(uint64_t channel, std::string data);
  void close(uint64_t channel);
  bool has(const TaskRef& ref) const {
    const auto at = by_task_.lower_bound({ref, 0});
    return at != by_task_.end() && at->first == ref;
  }

  // What becomes of attempts.
  void attached(const TaskRef& ref, const internal::v1::AttemptId& attempt,
                const std::shared_ptr<AgentSession>& session);
  void detached(const TaskRef& ref, const std::optional<Row>& row);
  void ended(const TaskRef& ref, const std::optional<Row>& row);
  void answered(const internal::v1::ChannelData& data);
  void session_over(const std::shared_ptr<AgentSession>& session);
  void close_all(const Status& why);

 private:
  struct Channel {
    TaskRef ref;
    std::shared_ptr<ActorPeer> peer;
    internal::v1::AttemptId attempt;
    std::shared_ptr<AgentSession> session;  // null: not attached
  };

  // Takes the channels of a task out.
  std::vector<Channel> take(const TaskRef& ref, bool only_attached);
  void tell_agent(const Channel& channel, uint64_t number, std::string data, bool close);

  std::map<uint64_t, Channel> channels_;
  std::set<std::pair<TaskRef, uint64_t>> by_task_;
  uint64_t next_ = 1;
};

}  // namespace uccp::tasks
