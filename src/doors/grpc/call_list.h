// The calls at work in the gRPC door, and those whose deadline the door itself has to watch.
//
// gRPC cancels a call at the deadline that its client sent. One that came without has the pipeline's default, which
// nobody would enforce if the handler never answered. As that default is a constant, such calls expire in the order in
// which they came: a list in that order, in shards against contention, is all that is needed.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "call/call.h"

namespace uccp::doors {

class CallList {
 public:
  struct Entry {
    BootTime deadline;
    std::weak_ptr<call::Call> call;
  };
  struct Place {
    size_t shard = kShards;  // kShards: not in the list
    std::list<Entry>::iterator at;
  };

  void opened() { active_.fetch_add(1, std::memory_order_relaxed); }
  void closed() { active_.fetch_sub(1, std::memory_order_relaxed); }
  size_t active() const { return active_.load(std::memory_order_relaxed); }

  Place watch(const call::CallPtr& call, BootTime deadline) {
    const size_t shard = next_.fetch_add(1, std::memory_order_relaxed) % kShards;
    std::lock_guard lock(shards_[shard].mutex);
    auto& entries = shards_[shard].entries;
    return {shard, entries.insert(entries.end(), {deadline, call})};
  }
  void unwatch(Place& place) {
    if (place.shard == kShards) return;
    std::lock_guard lock(shards_[place.shard].mutex);
    shards_[place.shard].entries.erase(place.at);
    place.shard = kShards;
  }
  // The calls that are past their deadline. Each is answered again at the next sweep until it is unwatched.
  std::vector<call::CallPtr> expired(BootTime now) {
    std::vector<call::CallPtr> out;
    for (Shard& shard : shards_) {
      std::lock_guard lock(shard.mutex);
      for (const Entry& entry : shard.entries) {
        if (entry.deadline > now) break;
        if (auto call = entry.call.lock()) out.push_back(std::move(call));
      }
    }
    return out;
  }

 private:
  static constexpr size_t kShards = 8;
  struct alignas(64) Shard {
    std::mutex mutex;
    std::list<Entry> entries;
  };
  std::array<Shard, kShards> shards_;
  std::atomic<size_t> next_{0};
  std::atomic<size_t> active_{0};
};

}  // namespace uccp::doors
