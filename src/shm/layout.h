// What processes see of a namespace's shared memory: the index that says where objects are, the segment that they are
// in, and a page of each process on which it says what it reads (docs/design/objects.md). Little endian; read by
// python/uccp_memory.py too.
//
// Invariants: only the store writes the index. A slot's word grows with each change; it is even while the slot shows a
// sealed object, odd while it does not, 0 if it never did. Space of an object is not used again before its slot was
// hidden, all processors have passed a barrier, and no page pins the slot.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace uccp::shm {

using ObjectId = std::array<uint8_t, 16>;

inline constexpr uint64_t kIndexMagic = 0x31'4d'48'53'50'43'43'55;  // "UCCPSHM1"
inline constexpr uint32_t kLayoutVersion = 1;
inline constexpr size_t kHeaderBytes = 4096;
// An object is in one of so many slots from its own on, or in none.
inline constexpr uint32_t kWindowSlots = 8;
// Objects that a process pins at a time; what it reads beyond them it copies.
inline constexpr uint32_t kPinsMax = 4096;
// Objects begin at multiples of it.
inline constexpr uint64_t kAlignment = 64;

struct IndexHeader {
  uint64_t magic = kIndexMagic;
  uint32_t version = kLayoutVersion;
  uint32_t slots = 0;  // a power of two
  uint64_t segment_bytes = 0;
};

struct Slot {
  uint64_t word = 0;  // atomic
  ObjectId id{};
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t reserved[3] = {};
};
static_assert(sizeof(Slot) == 64);

// Of a process' page, which goes on behind its pins with a byte for each slot: how often it was read since the store
// looked, up to 255.
struct Pin {
  uint32_t slot = 0;  // its number and 1; 0: none
  uint32_t count = 0;
};
static_assert(sizeof(Pin) == 8);

inline constexpr size_t kPinsBytes = sizeof(Pin) * kPinsMax;
constexpr size_t index_bytes(uint32_t slots) { return kHeaderBytes + sizeof(Slot) * size_t{slots}; }
constexpr size_t page_bytes(uint32_t slots) { return kPinsBytes + slots; }

// The first slot that may show the object. Ids are random.
inline uint32_t first_slot(const ObjectId& id, uint32_t slots) {
  return (uint32_t{id[0]} | uint32_t{id[1]} << 8 | uint32_t{id[2]} << 16 | uint32_t{id[3]} << 24) & (slots - 1);
}

struct ObjectIdHash {
  size_t operator()(const ObjectId& id) const {
    uint64_t half = 0;
    std::memcpy(&half, id.data() + 8, sizeof half);
    return half;
  }
};

}  // namespace uccp::shm
