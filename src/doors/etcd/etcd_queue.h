// Queues of keys that rpcs of this node wait in: below a prefix, whoever's key was created first is first.
//
// All who wait in one queue with the same credentials share one watch of its prefix, so that the end of a turn is one
// event and two look-ups however many wait, and nobody asks the store again. A queue stays open for a while after its
// last waiter; the watch and the range it begins with are calls of the contract with the credentials of who opened it.
// Callable from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "doors/etcd/etcd_ask.h"

namespace uccp::doors {

// Queues without waiters that stay open, all together.
inline constexpr size_t kIdleQueuesMax = 64;

class KeyQueues : public std::enable_shared_from_this<KeyQueues> {
 public:
  explicit KeyQueues(EtcdContextPtr context) : context_(std::move(context)) {}
  KeyQueues(const KeyQueues&) = delete;
  KeyQueues& operator=(const KeyQueues&) = delete;

  enum class Turn : uint8_t {
    kFirst,  // no key that was created before is left
    kGone,   // the own key was deleted
    kLost,   // not followed any more: wait again
  };
  // Told once, on any thread, perhaps before wait() returns. An error: the queue cannot be followed with these
  // credentials. `revision`: of the store when it was so.
  using Told = std::function<void(Result<Turn> turn, int64_t revision)>;

  // Waits with the key that was created at `created`. Ends with leave(), too: nothing is told after it.
  uint64_t wait(const call::CallPtr& call, const std::string& prefix, const std::string& key, int64_t created,
                Told told);
  void leave(uint64_t number);
  // Runs `done` when those who wait behind `key` have been told of everything up to the revision; at once if none do.
  void after_told(const call::CallPtr& call, std::string_view key, int64_t revision, std::function<void()> done);

 private:
  class Queue;
  using QueuePtr = std::shared_ptr<Queue>;
  // Token, certificate, namespace, prefix.
  using Name = std::tuple<std::string, std::string, std::string, std::string>;
  static Name name_of(const call::Call& call, std::string prefix);

  QueuePtr of(const call::CallPtr& call, const std::string& prefix);
  void note_idle(const QueuePtr& queue);
  void forget(const QueuePtr& queue);

  const EtcdContextPtr context_;
  std::mutex mutex_;  // of everything here, queues included; never held while something is told
  std::map<Name, QueuePtr> queues_;
  std::map<uint64_t, std::weak_ptr<Queue>> places_;
  std::list<std::weak_ptr<Queue>> idle_;  // longest first
  uint64_t last_number_ = 0;
};

// The key behind all keys that begin so.
std::string behind_prefix(std::string prefix);
// Ends a call of KeyValue/Watch that has done its work.
void end_watch(const call::CallPtr& watch);

}  // namespace uccp::doors
