// Sends the output of attempts to the cluster while somebody there reads it.
//
// Invariants: a follower reads the log by position and keeps nothing of it in memory, so a slow reader costs nothing;
// it stops while the link has kLinkQueueBytes to send. Each chunk carries its offset in its own stream and its order
// over both, so that the cluster can join it to what it has and to the uploaded log. Thread: the agent's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string_view>
#include <utility>

#include "agent/executor.h"
#include "agent/link.h"
#include "agent/log_file.h"

namespace uccp::agent {

// Behind the key of an attempt: its yielded values in place of its output.
inline constexpr std::string_view kYieldedSuffix = "/values";

class LogFollowers {
 public:
  static constexpr size_t kFollowersMax = 10'000;
  // The log of an attempt; null when there is none here any more.
  using FindLog = std::function<const AttemptLog*(const AttemptKey&)>;

  LogFollowers(ServerLink& link, FindLog find_log) : link_(link), find_log_(std::move(find_log)) {}

  void subscribe(const wire::SubscribeLogs& request);
  void unsubscribe(const wire::UnsubscribeLogs& request);
  // The attempt has new output.
  void appended(const AttemptKey& key);
  // Its output is complete. Followers get what the link takes now, and the reply with where they came to: the rest is
  // in the uploaded log.
  void completed(const AttemptKey& key);
  // The link has room again.
  void pump_all();
  // The link is down: the cluster subscribes anew.
  void clear() { followers_.clear(); }

 private:
  struct Follower {
    wire::AttemptId attempt;
    AttemptKey key;
    uint64_t subscription = 0;
    uint64_t wanted[2] = {0, 0};  // first byte to send of stdout and stderr
    bool follow = false;
    uint64_t position = 0;        // in the log
    uint64_t order = 0;           // of the next record
    uint64_t passed[2] = {0, 0};  // bytes of each stream before `position`
  };
  using Followers = std::map<std::pair<AttemptKey, uint64_t>, Follower>;

  // True when all there is was sent.
  bool pump(Follower& follower);
  void send_record(Follower& follower, const tasks::LogRecord& record);
  void reply(const Follower& follower, bool complete, bool unknown);

  ServerLink& link_;
  FindLog find_log_;
  Followers followers_;
};

}  // namespace uccp::agent
