// Which objects leave memory first when it is full.
//
// Uses are told in bulk: readers count them in shared memory, and the store looks there before it asks for victims. So
// "least recently used" is as exact as these looks.
// Thread: one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace uccp::shm {

enum class Policy : uint8_t { kS3Fifo, kLru, kLfu, kTtl };

// "s3-fifo", "lru", "lfu", "ttl"; nothing if it is none of them.
std::optional<Policy> parse_policy(std::string_view name);

class Eviction {
 public:
  // Objects in memory are named by their slots.
  using Key = uint32_t;

  struct Added {
    Key key = 0;
    uint64_t fingerprint = 0;  // of the object, the same when it comes back
    uint64_t size = 0;
    BootTime time;
  };

  virtual ~Eviction() = default;
  // Requires that it is not there.
  virtual void added(const Added& one) = 0;
  // It was read so often since the last time.
  virtual void used(Key key, uint32_t times) = 0;
  virtual void removed(Key key) = 0;
  // Objects of together at least `bytes`, if there are so many, in the order in which they should go. They stay until
  // removed() is called.
  virtual std::vector<Key> victims(uint64_t bytes) = 0;
  // Objects that have been there since before `time`, of a policy that goes by it.
  virtual std::vector<Key> older_than(BootTime /*time*/) { return {}; }

  static std::unique_ptr<Eviction> make(Policy policy);
};

}  // namespace uccp::shm
