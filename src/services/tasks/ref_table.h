// Records by task, dense in memory: found by one probe of a small index, at addresses that stay.
//
// A hash table of nodes costs a cache miss for each step; with a hundred thousand running tasks these are what a
// decision consists of. Here a probe reads eight bytes of the index, and only what most likely is the record is looked
// at. It is never iterated, so nothing depends on hashes.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/huge_allocator.h"
#include "services/tasks/shapes.h"

namespace uccp::tasks {

// `Record` says by is_of(ref) whether it is of that task.
template <typename Record>
class RefTable {
 public:
  size_t size() const { return size_; }
  bool contains(const TaskRef& ref) const { return find(ref) != nullptr; }

  const Record* find(const TaskRef& ref) const {
    const size_t place = place_of(ref, tag_of(ref));
    return place == kNowhere ? nullptr : &record(index_[place].number);
  }
  Record* find(const TaskRef& ref) { return const_cast<Record*>(std::as_const(*this).find(ref)); }

  // The task gets a record soon.
  void prefetch(const TaskRef& ref) const {
    if (!index_.empty()) __builtin_prefetch(&index_[tag_of(ref) & mask()]);
  }
  // The record of a task that has none yet.
  Record& add(const TaskRef& ref, Record added) {
    if ((size_ + 1) * 2 > index_.size()) grow();
    const uint32_t number = take_vacant();
    insert({tag_of(ref), number});
    ++size_;
    return record(number) = std::move(added);
  }

  bool erase(const TaskRef& ref) {
    const size_t place = place_of(ref, tag_of(ref));
    if (place == kNowhere) return false;
    const uint32_t number = index_[place].number;
    close_gap(place);
    record(number) = {};
    vacant_.push_back(number);
    --size_;
    return true;
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr size_t kNowhere = SIZE_MAX;
  static constexpr size_t kIndexMin = 16;
  static constexpr size_t kLineBytes = 64;
  // The first chunk is small, for there are tables with few records; each other one is a huge page.
  static constexpr uint32_t kInFirst = 512;
  static constexpr uint32_t kInChunk = kHugePageBytes / sizeof(Record);
  struct Entry {
    uint32_t tag = 0;  // of the hash; says also where the entry would stand if nothing were in the way
    uint32_t number = kNone;
  };

  using Index = std::vector<Entry, HugeAllocator<Entry>>;

  static uint32_t tag_of(const TaskRef& ref) {
    const uint64_t hash = TaskRefHash()(ref);
    return static_cast<uint32_t>(hash ^ hash >> 32);
  }
  size_t mask() const { return index_.size() - 1; }
  // Chunks are large, so that which one it is costs no cache miss of its own.
  const Record& record(uint32_t number) const {
    if (number < kInFirst) return chunks_[0][number];
    return chunks_[1 + (number - kInFirst) / kInChunk][(number - kInFirst) % kInChunk];
  }
  Record& record(uint32_t number) { return const_cast<Record&>(std::as_const(*this).record(number)); }
  uint32_t take_vacant() {
    if (vacant_.empty()) {
      if (chunks_.empty() || chunks_.back().size() == chunks_.back().capacity())
        chunks_.emplace_back().reserve(chunks_.size() == 1 ? kInFirst : kInChunk);
      chunks_.back().emplace_back();
      return records_++;
    }
    const uint32_t number = vacant_.back();
    vacant_.pop_back();
    return number;
  }

  size_t place_of(const TaskRef& ref, uint32_t tag) const {
    if (index_.empty()) return kNowhere;
    for (size_t at = tag & mask(); index_[at].number != kNone; at = (at + 1) & mask()) {
      if (index_[at].tag != tag) continue;
      // All of the record is wanted next, and it is not likely to be another's.
      const Record& found = record(index_[at].number);
      for (size_t line = kLineBytes; line < sizeof(Record); line += kLineBytes)
        __builtin_prefetch(reinterpret_cast<const char*>(&found) + line);
      if (found.is_of(ref)) return at;
    }
    return kNowhere;
  }

  void insert(Entry entry) {
    size_t at = entry.tag & mask();
    while (index_[at].number != kNone) at = (at + 1) & mask();
    index_[at] = entry;
  }

  // Moves up what stands behind the gap because of what stood in it.
  void close_gap(size_t gap) {
    for (size_t at = (gap + 1) & mask(); index_[at].number != kNone; at = (at + 1) & mask()) {
      const size_t home = index_[at].tag & mask();
      if (((at - home) & mask()) < ((at - gap) & mask())) continue;
      index_[gap] = index_[at];
      gap = at;
    }
    index_[gap] = {};
  }

  void grow() {
    Index old(index_.empty() ? kIndexMin : index_.size() * 2);
    old.swap(index_);
    for (const Entry& entry : old) {
      if (entry.number != kNone) insert(entry);
    }
  }

  Index index_;                                                     // a power of two of them, at most half of them used
  std::vector<std::vector<Record, HugeAllocator<Record>>> chunks_;  // never longer than they were reserved
  uint32_t records_ = 0;                                            // in all chunks
  std::vector<uint32_t> vacant_;
  size_t size_ = 0;
};

}  // namespace uccp::tasks
