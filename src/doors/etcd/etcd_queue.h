// Queues of keys that rpcs of this node wait in: below a prefix, whoever's key was created first is first.
//
// All who wait in one queue with the same credentials share one watch of its prefix, so that the end of a turn is one
// event and two look-ups however many wait, and nobody asks the store again. Whoever releases through this node asks in
// the same change who is first then, and says it here, which is sooner than the event. Who comes while others wait need
// not be written at once: the release takes one along, so that a turn is one change and not two. A queue stays open for
// a while after its last waiter; the watch and the range it begins with are calls of the contract with the credentials
// of who opened it. Callable from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "doors/etcd/etcd_ask.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {

// Queues without waiters that stay open, all together.
inline constexpr size_t kIdleQueuesMax = 64;
// Who comes while others wait is written by itself after one to two times this.
inline constexpr int64_t kEntrantHeldMs = 4;

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
  // One that is about to queue up, which `entry` does.
  struct Entrant {
    call::CallPtr call;
    std::shared_ptr<const v1::TxnRequest> entry;
    // Its answer, if another change took it along; null: it has to be written by itself. Called once, on any thread.
    std::function<void(const v1::TxnResponse*)> go;
  };
  // Keeps it until a release takes it along, or for a moment. False if nobody waits there: it has to go at once.
  bool hold(const std::string& prefix, Entrant entrant);
  // The one that has been kept longest in the queue of the key, if it came from the host of `call`, too.
  std::optional<Entrant> take(const call::CallPtr& call, std::string_view key);

  // Somebody waits here in the queue of the key, with the credentials of `call`.
  bool awaited(const call::CallPtr& call, std::string_view key);
  // A change that was made with the credentials of `call` left the key that was created at `created` first in the queue
  // of `key`, at that revision.
  void tell_first(const call::CallPtr& call, std::string_view key, int64_t created, int64_t revision);

 private:
  class Queue;
  using QueuePtr = std::shared_ptr<Queue>;
  // Token, certificate, namespace, prefix.
  using Name = std::tuple<std::string, std::string, std::string, std::string>;
  static Name name_of(const call::Call& call, std::string prefix);

  QueuePtr find(const call::Call& call, std::string_view prefix);
  void tick_later();
  void tick();
  void note_idle(const QueuePtr& queue);
  void forget(const QueuePtr& queue);

  const EtcdContextPtr context_;
  std::mutex mutex_;  // of everything here, queues included; never held while something is told
  std::map<Name, QueuePtr> queues_;
  std::map<uint64_t, std::weak_ptr<Queue>> places_;
  std::list<std::weak_ptr<Queue>> idle_;  // longest first
  std::set<QueuePtr> holding_;            // those that keep entrants
  bool ticking_ = false;
  uint64_t ticks_ = 0;
  uint64_t last_number_ = 0;
};

// The prefix of the queue that the key is in; empty if it is in none.
std::string_view queue_of(std::string_view key);
// The key behind all keys that begin so.
std::string behind_prefix(std::string prefix);
// Ends a call of KeyValue/Watch that has done its work.
void end_watch(const call::CallPtr& watch);

}  // namespace uccp::doors
