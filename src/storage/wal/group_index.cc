#include "storage/wal/group_index.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::storage::wal {
namespace {

// What an entry costs in the cache besides its data.
constexpr uint64_t kCachedEntryOverhead = sizeof(Entry);

}  // namespace

void SegmentUse::add(const EntryPlace& place) {
  Use& use = uses_[place.segment];
  ++use.entries;
  use.bytes += place.bytes;
}

void SegmentUse::drop(const EntryPlace& place) {
  const auto it = uses_.find(place.segment);
  UCCP_CHECK(it != uses_.end() && it->second.entries > 0, "an entry is dropped from a segment that has it");
  it->second.bytes -= place.bytes;
  if (--it->second.entries == 0) uses_.erase(it);
}

SegmentUse::Use SegmentUse::of(uint64_t segment) const {
  const auto it = uses_.find(segment);
  return it == uses_.end() ? Use() : it->second;
}

Term GroupIndex::term(LogIndex index) const {
  if (index == start_.index) return start_.term;
  UCCP_CHECK(index <= last(), "the term of an entry that is there");
  return runs_.of(index);
}

void GroupIndex::set_place(LogIndex index, EntryPlace place) {
  EntryPlace& old = places_[offset_of(index)];
  use_->drop(old);
  use_->add(place);
  old = place;
}

void GroupIndex::append(LogIndex index, Term term, EntryPlace place) {
  UCCP_CHECK(index > start_.index && index <= last().next(), "an entry continues the log or replaces its end");
  if (index <= last()) drop_from(index);
  places_.push_back(place);
  use_->add(place);
  runs_.append(index, term);
}

void GroupIndex::drop_from(LogIndex index) {
  while (last() >= index) {
    use_->drop(places_.back());
    places_.pop_back();
  }
  runs_.drop_from(index);
  drop_cached_from(index);
}

void GroupIndex::drop_cached_from(LogIndex index) {
  while (!cached_.empty() && cached_.back().index >= index) {
    cached_bytes_ -= cached_.back().data.size() + kCachedEntryOverhead;
    cached_.pop_back();
  }
}

Following GroupIndex::set_start(LogPosition position) {
  UCCP_CHECK(position.index > start_.index, "a start moves forward");
  // What follows an entry that the snapshot contradicts contradicts the snapshot too.
  const bool conflicts = position.index > last() || term(position.index) != position.term;
  if (conflicts) drop_from(start_.index.next());
  while (start_.index < position.index && !places_.empty()) {
    use_->drop(places_.front());
    places_.pop_front();
    start_.index = start_.index.next();
  }
  start_ = position;
  while (!cached_.empty() && cached_.front().index <= start_.index) drop_oldest_cached();
  if (places_.empty()) runs_.clear();
  runs_.drop_before(start_.index.next());
  return conflicts ? Following::kDropped : Following::kKept;
}

void GroupIndex::clear() {
  drop_from(start_.index.next());
  runs_.clear();
  start_ = {};
  hard_state = {};
}

void GroupIndex::cache(const Entry& entry) {
  UCCP_CHECK(entry.index == last(), "the cache is a tail of the log");
  cached_.push_back(entry);
  cached_bytes_ += entry.data.size() + kCachedEntryOverhead;
}

const Entry* GroupIndex::cached(LogIndex index) const {
  if (cached_.empty() || index < cached_.front().index || index > cached_.back().index) return nullptr;
  return &cached_[index.value - cached_.front().index.value];
}

void GroupIndex::drop_oldest_cached() {
  cached_bytes_ -= cached_.front().data.size() + kCachedEntryOverhead;
  cached_.pop_front();
}

}  // namespace uccp::storage::wal
