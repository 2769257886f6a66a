#include "shm/eviction.h"

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <unordered_map>
#include <unordered_set>

namespace uccp::shm {
namespace {

// A queue whose members are found by their keys; the front goes first.
struct Member {
  Eviction::Added object;
  uint32_t uses = 0;
};
using Queue = std::list<Member>;

// S3-FIFO (Yang et al., SOSP 2023): most objects are used once, so what is new waits in a small queue and comes to the
// main one only if it is used there. What left the small queue is remembered, and goes to the main one when it comes
// back.
class S3Fifo final : public Eviction {
 public:
  void added(const Added& one) override {
    const bool back = ghosts_.erase(one.fingerprint) > 0;
    Place place{.in_main = back};
    Queue& queue = back ? main_ : small_;
    place.at = queue.insert(queue.end(), {.object = one});
    (back ? main_bytes_ : small_bytes_) += one.size;
    places_.emplace(one.key, place);
  }

  void used(Key key, uint32_t times) override {
    const auto found = places_.find(key);
    if (found == places_.end()) return;
    found->second.at->uses = std::min<uint32_t>(kUsesMax, found->second.at->uses + times);
  }

  void removed(Key key) override {
    const auto found = places_.find(key);
    if (found == places_.end()) return;
    const auto [at, in_main] = found->second;
    (in_main ? main_bytes_ : small_bytes_) -= at->object.size;
    if (!in_main) remember(at->object.fingerprint);
    (in_main ? main_ : small_).erase(at);
    places_.erase(found);
  }

  std::vector<Key> victims(uint64_t bytes) override {
    std::vector<Key> found;
    // What is chosen is set aside until removed(), at the fronts of both queues.
    uint64_t chosen = 0, chosen_small = 0;
    auto small = small_.begin(), main = main_.begin();
    while (chosen < bytes) {
      const bool small_is_large = (small_bytes_ - chosen_small) * kSmallShare > small_bytes_ + main_bytes_ - chosen;
      if (small != small_.end() && (small_is_large || main == main_.end())) {
        const auto at = small++;
        if (at->uses > kUsesToStay) {
          promote(at);
          if (main == main_.end()) main = std::prev(main_.end());
          continue;
        }
        chosen_small += at->object.size;
        chosen += at->object.size;
        found.push_back(at->object.key);
      } else if (main != main_.end()) {
        const auto at = main++;
        if (at->uses > 0) {
          at->uses -= 1;
          main_.splice(main_.end(), main_, at);
          if (main == main_.end()) main = at;
          continue;
        }
        chosen += at->object.size;
        found.push_back(at->object.key);
      } else {
        break;
      }
    }
    return found;
  }

 private:
  static constexpr uint32_t kUsesMax = 3;
  static constexpr uint32_t kUsesToStay = 1;
  static constexpr uint64_t kSmallShare = 10;  // the small queue has a tenth
  static constexpr size_t kGhostsMax = 65'536;

  struct Place {
    Queue::iterator at;
    bool in_main = false;
  };

  void promote(Queue::iterator at) {
    small_bytes_ -= at->object.size;
    main_bytes_ += at->object.size;
    at->uses = 0;
    places_.at(at->object.key).in_main = true;
    main_.splice(main_.end(), small_, at);
  }

  void remember(uint64_t fingerprint) {
    if (!ghosts_.insert(fingerprint).second) return;
    ghost_order_.push_back(fingerprint);
    while (ghost_order_.size() > kGhostsMax) {
      ghosts_.erase(ghost_order_.front());
      ghost_order_.pop_front();
    }
  }

  Queue small_, main_;
  uint64_t small_bytes_ = 0, main_bytes_ = 0;
  std::unordered_map<Key, Place> places_;
  std::unordered_set<uint64_t> ghosts_;
  std::deque<uint64_t> ghost_order_;
};

// A queue in which use moves an object to the end (least recently used), or does not (by age).
class InOrder final : public Eviction {
 public:
  explicit InOrder(bool use_counts) : use_counts_(use_counts) {}

  void added(const Added& one) override { places_.emplace(one.key, queue_.insert(queue_.end(), {.object = one})); }

  void used(Key key, uint32_t /*times*/) override {
    const auto found = places_.find(key);
    if (use_counts_ && found != places_.end()) queue_.splice(queue_.end(), queue_, found->second);
  }

  void removed(Key key) override {
    const auto found = places_.find(key);
    if (found == places_.end()) return;
    queue_.erase(found->second);
    places_.erase(found);
  }

  std::vector<Key> victims(uint64_t bytes) override {
    std::vector<Key> found;
    uint64_t chosen = 0;
    for (auto at = queue_.begin(); at != queue_.end() && chosen < bytes; ++at) {
      found.push_back(at->object.key);
      chosen += at->object.size;
    }
    return found;
  }

  std::vector<Key> older_than(BootTime time) override {
    std::vector<Key> found;
    if (use_counts_) return found;
    for (auto at = queue_.begin(); at != queue_.end() && at->object.time < time; ++at) found.push_back(at->object.key);
    return found;
  }

 private:
  const bool use_counts_;
  Queue queue_;
  std::unordered_map<Key, Queue::iterator> places_;
};

// Least often used; of equals the oldest. Counts are halved now and then, so that what was popular once does not stay.
class Lfu final : public Eviction {
 public:
  void added(const Added& one) override {
    const Rank rank{1, ++sequence_};
    ranks_.emplace(one.key, rank);
    order_.emplace(rank, one);
  }

  void used(Key key, uint32_t times) override {
    const auto found = ranks_.find(key);
    if (found == ranks_.end()) return;
    auto node = order_.extract(found->second);
    found->second.first += times;
    node.key() = found->second;
    order_.insert(std::move(node));
    uses_ += times;
    if (uses_ > kUsesPerObject * ranks_.size()) halve();
  }

  void removed(Key key) override {
    const auto found = ranks_.find(key);
    if (found == ranks_.end()) return;
    order_.erase(found->second);
    ranks_.erase(found);
  }

  std::vector<Key> victims(uint64_t bytes) override {
    std::vector<Key> found;
    uint64_t chosen = 0;
    for (auto at = order_.begin(); at != order_.end() && chosen < bytes; ++at) {
      found.push_back(at->second.key);
      chosen += at->second.size;
    }
    return found;
  }

 private:
  using Rank = std::pair<uint64_t, uint64_t>;  // uses, and when it came
  static constexpr uint64_t kUsesPerObject = 10;

  void halve() {
    uses_ = 0;
    std::map<Rank, Added> halved;
    for (auto& [rank, object] : order_) {
      const Rank now{(rank.first + 1) / 2, rank.second};
      ranks_.at(object.key) = now;
      halved.emplace(now, object);
    }
    order_ = std::move(halved);
  }

  std::map<Rank, Added> order_;
  std::unordered_map<Key, Rank> ranks_;
  uint64_t sequence_ = 0, uses_ = 0;
};

}  // namespace

std::optional<Policy> parse_policy(std::string_view name) {
  if (name == "s3-fifo") return Policy::kS3Fifo;
  if (name == "lru") return Policy::kLru;
  if (name == "lfu") return Policy::kLfu;
  if (name == "ttl") return Policy::kTtl;
  return std::nullopt;
}

std::unique_ptr<Eviction> Eviction::make(Policy policy) {
  switch (policy) {
    case Policy::kS3Fifo: return std::make_unique<S3Fifo>();
    case Policy::kLru: return std::make_unique<InOrder>(true);
    case Policy::kTtl: return std::make_unique<InOrder>(false);
    case Policy::kLfu: break;
  }
  return std::make_unique<Lfu>();
}

}  // namespace uccp::shm
