// Calls that wait for a change of the state: one subscription a service, however many wait, and each wait ends exactly
// once: by the change that it waits for, by its time, because the client went away, or because it has to look again.
//
// While a call waits, its node keeps the machine's lease of the wait alive, so that the wait ends soon after the node
// dies. Callable from any thread; callbacks come without the lock, on the thread of what ended the wait.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "call/call.h"
#include "machine/ports.h"

namespace uccp::coordination {

class Waits : public std::enable_shared_from_this<Waits> {
 public:
  enum class End {
    kChange,  // what was waited for happened
    kTimeout,
    kCancelled,  // the client went away
    kLookAgain,  // changes may have been missed, or the lease ended: ask the state
    kStopping,   // this node no longer serves the wait: the client should ask again
  };
  // `change` is set for kChange only.
  using OnEnd = std::move_only_function<void(End, const machine::Change* change)>;
  // Whose wait a change ends; empty: nobody's.
  using KeyOf = std::function<std::string(const machine::Change&)>;
  // Everything must outlive the calls.
  struct Environment {
    machine::Watcher& watcher;
    machine::Leases& leases;
    Executor& timers;
    const Clock& clock;
  };
  struct Wait {
    std::string key;
    LogIndex since;              // the state that the caller saw
    machine::LeaseId lease = 0;  // kept alive; 0: none
    int64_t lease_ttl_ms = 0;
    BootTime until;
  };

  static std::shared_ptr<Waits> make(std::string topic, Environment environment, KeyOf key_of) {
    return std::shared_ptr<Waits>(new Waits(std::move(topic), environment, std::move(key_of)));
  }

  // Answers the number of the wait. What happened before the call is not noticed: look at the state afterwards.
  uint64_t add(const call::CallPtr& call, Wait wait, OnEnd on_end) {
    uint64_t id = 0;
    {
      std::lock_guard lock(mutex_);
      id = ++last_;
      Entry entry{std::move(wait), env_.clock.boot(), std::move(on_end)};
      by_key_.emplace(entry.wait.key, id);
      const LogIndex since = entry.wait.since;
      entries_.emplace(id, std::move(entry));
      if (!watch_) subscribe(since);
    }
    schedule(id);
    call->on_cancel([weak = weak_from_this(), id] {
      if (auto self = weak.lock()) self->finish(id, End::kCancelled, nullptr);
    });
    call->begin_waiting();
    return id;
  }
  // Ends the wait without its callback. False: it ended already, its callback ran or will run.
  bool remove(uint64_t id) { return static_cast<bool>(take(id)); }
  size_t size() const {
    std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  struct Entry {
    Wait wait;
    BootTime kept;  // when the lease was kept alive last
    OnEnd on_end;
    Executor::TimerId timer = 0;
  };

  Waits(std::string topic, Environment environment, KeyOf key_of)
      : topic_(std::move(topic)), env_(environment), key_of_(std::move(key_of)) {}

  void subscribe(LogIndex since) {
    watch_ = env_.watcher.watch(
        {.topic = topic_}, since,
        [weak = weak_from_this()](const machine::Change& change) {
          const auto self = weak.lock();
          return self && self->on_change(change);
        },
        [weak = weak_from_this()](Status status) {
          if (const auto self = weak.lock()) self->on_lost(status);
        });
  }

  bool on_change(const machine::Change& change) {
    const std::string key = key_of_(change);
    if (key.empty()) return true;
    std::vector<uint64_t> ended;
    {
      std::lock_guard lock(mutex_);
      const auto [first, last] = by_key_.equal_range(key);
      for (auto it = first; it != last; ++it) ended.push_back(it->second);
    }
    for (const uint64_t id : ended) finish(id, End::kChange, &change);
    return true;
  }

  void on_lost(const Status& status) {
    std::vector<uint64_t> all;
    {
      std::lock_guard lock(mutex_);
      watch_.reset();
      for (const auto& [id, entry] : entries_) all.push_back(id);
    }
    const End why = status.code() == Code::kUnavailable ? End::kStopping : End::kLookAgain;
    for (const uint64_t id : all) finish(id, why, nullptr);
  }

  OnEnd take(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return nullptr;
    const auto [first, last] = by_key_.equal_range(it->second.wait.key);
    for (auto key = first; key != last; ++key) {
      if (key->second != id) continue;
      by_key_.erase(key);
      break;
    }
    env_.timers.cancel(it->second.timer);
    OnEnd on_end = std::move(it->second.on_end);
    entries_.erase(it);
    return on_end;
  }
  void finish(uint64_t id, End why, const machine::Change* change) {
    if (OnEnd on_end = take(id)) on_end(why, change);
  }

  void schedule(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    const Wait& wait = it->second.wait;
    BootTime next = wait.until;
    if (wait.lease != 0) next = std::min(next, it->second.kept.plus_ms(wait.lease_ttl_ms / 3));
    const int64_t delay = std::max<int64_t>(1, next.ms_since(env_.clock.boot()));
    it->second.timer = env_.timers.post_after(delay, [weak = weak_from_this(), id] {
      if (auto self = weak.lock()) self->tick(id);
    });
  }

  void tick(uint64_t id) {
    machine::LeaseId lease = 0;
    bool over = false;
    {
      std::lock_guard lock(mutex_);
      const auto it = entries_.find(id);
      if (it == entries_.end()) return;
      Entry& entry = it->second;
      const BootTime now = env_.clock.boot();
      over = now >= entry.wait.until;
      if (!over && entry.wait.lease != 0 && now >= entry.kept.plus_ms(entry.wait.lease_ttl_ms / 3)) {
        entry.kept = now;
        lease = entry.wait.lease;
      }
    }
    if (over) return finish(id, End::kTimeout, nullptr);
    if (lease != 0) {
      env_.leases.keep_alive(kCoreGroup, lease, [weak = weak_from_this(), id](Result<int64_t> ttl) {
        const auto self = weak.lock();
        if (ttl || !self) return;
        if (ttl.error().code() == Code::kNotFound) self->finish(id, End::kLookAgain, nullptr);
        if (ttl.error().code() == Code::kNotLeader) self->finish(id, End::kStopping, nullptr);
      });
    }
    schedule(id);
  }

  const std::string topic_;
  const Environment env_;
  const KeyOf key_of_;
  mutable std::mutex mutex_;
  uint64_t last_ = 0;
  std::map<uint64_t, Entry> entries_;
  std::multimap<std::string, uint64_t> by_key_;
  std::shared_ptr<machine::Watch> watch_;
};

// When leases end, as far as this node heard: keep-alives are no part of the state. Bounded by the leases that are
// alive.
class LeaseTimes {
 public:
  // Nothing that was heard before `started` is known: the leader gave every lease its whole ttl then.
  explicit LeaseTimes(WallTime started) : started_us_(started.us) {}

  void heard(machine::LeaseId lease, WallTime now, int64_t ttl_ms) {
    std::lock_guard lock(mutex_);
    heard_[lease] = {now.us, now.us + ttl_ms * 1000};
    if (heard_.size() < sweep_at_) return;
    std::erase_if(heard_, [&](const auto& item) { return item.second.expire_us < now.us; });
    sweep_at_ = std::max<size_t>(1024, heard_.size() * 2);
  }
  struct Times {
    int64_t renewed_us;  // 0: not that this node knows
    int64_t expire_us;
  };
  // `begin_us`, `ttl_ms`: what the state knows.
  Times times(machine::LeaseId lease, int64_t begin_us, int64_t ttl_ms) const {
    std::lock_guard lock(mutex_);
    const int64_t known = std::max(begin_us, started_us_) + ttl_ms * 1000;
    const auto it = heard_.find(lease);
    if (it == heard_.end() || it->second.expire_us < known) return {0, known};
    return it->second;
  }

 private:
  const int64_t started_us_;
  mutable std::mutex mutex_;
  std::map<machine::LeaseId, Times> heard_;
  size_t sweep_at_ = 1024;
};

// When a call that may wait gives up: at the end of its own time, or shortly before its deadline, so that its answer
// still arrives. `wait_ms` < 0: until the deadline.
inline BootTime wait_until(const call::Call& call, int64_t wait_ms, BootTime now) {
  const BootTime own = now.plus_ms(wait_ms < 0 ? int64_t{24} * 3600 * 1000 : wait_ms);
  if (!call.deadline) return own;
  const int64_t left_ms = call.deadline->ms_since(now);
  return std::min(own, now.plus_ms(left_ms - std::min<int64_t>(100, left_ms / 10)));
}

}  // namespace uccp::coordination
