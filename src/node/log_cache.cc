#include "node/log_cache.h"

#include "base/check.h"

namespace uccp::node {
namespace {

constexpr size_t kFetchedReadsKept = 4;

size_t bytes_of(const Entry& entry) {
  return entry.data.size() + (entry.packed == nullptr ? 0 : entry.packed->bytes.size());
}

}  // namespace

void LogCache::reset(LogPosition start) {
  start_ = start;
  last_ = start.index;
  terms_.clear();
  recent_.clear();
  fetched_.clear();
  fetched_order_.clear();
  wanted_.reset();
  bytes_ = 0;
}

void LogCache::add_fetched(std::vector<Entry> entries) {
  if (entries.empty() || fetched_.contains(entries.front().index)) return;
  fetched_order_.push_back(entries.front().index);
  fetched_[entries.front().index] = std::move(entries);
  while (fetched_order_.size() > kFetchedReadsKept) {
    fetched_.erase(fetched_order_.front());
    fetched_order_.pop_front();
  }
}

void LogCache::append(const std::vector<Entry>& entries) {
  if (entries.empty()) return;
  const LogIndex first = entries.front().index;
  while (!recent_.empty() && recent_.back().index >= first) {
    bytes_ -= bytes_of(recent_.back());
    recent_.pop_back();
  }
  terms_.erase(terms_.lower_bound(first), terms_.end());
  if (!recent_.empty() && recent_.back().index.next() != first) {
    recent_.clear();
    bytes_ = 0;
  }
  for (const Entry& entry : entries) {
    if (terms_.empty() || std::prev(terms_.end())->second != entry.term) terms_[entry.index] = entry.term;
    bytes_ += bytes_of(entry);
    recent_.push_back(entry);
  }
  last_ = entries.back().index;
  release(released_);
}

void LogCache::release(LogIndex index) {
  released_ = index;
  while (bytes_ > bytes_max_ && !recent_.empty() && recent_.front().index <= released_) {
    bytes_ -= bytes_of(recent_.front());
    recent_.pop_front();
  }
}

void LogCache::compact(LogPosition start) {
  if (start.index <= start_.index) return;
  start_ = start;
  // The run that holds the first kept entry stays.
  auto keep = terms_.upper_bound(start.index);
  if (keep != terms_.begin()) --keep;
  terms_.erase(terms_.begin(), keep);
  while (!recent_.empty() && recent_.front().index <= start.index) {
    bytes_ -= bytes_of(recent_.front());
    recent_.pop_front();
  }
  if (last_ < start.index) last_ = start.index;
}

Result<Term> LogCache::term(LogIndex index) const {
  if (index == start_.index) return start_.term;
  if (index < start_.index) return fail(Code::kNotFound, "LOG_COMPACTED", "the entry is compacted");
  const auto after = terms_.upper_bound(index);
  if (index > last_ || after == terms_.begin()) return fail(Code::kInvalid, "LOG_INDEX", "the log ends before");
  return std::prev(after)->second;
}

std::optional<std::vector<Entry>> LogCache::recent(LogIndex from, LogIndex to, uint64_t bytes_max) const {
  if (recent_.empty() || from < recent_.front().index || from > recent_.back().index) return std::nullopt;
  std::vector<Entry> out;
  uint64_t bytes = 0;
  for (size_t i = from.value - recent_.front().index.value; i < recent_.size() && recent_[i].index < to; ++i) {
    bytes += recent_[i].data.size();
    if (!out.empty() && bytes > bytes_max) break;
    out.push_back(recent_[i]);
  }
  return out;
}

Result<std::vector<Entry>> LogCache::entries(LogIndex from, LogIndex to, uint64_t bytes_max) const {
  if (from <= start_.index) return fail(Code::kNotFound, "LOG_COMPACTED", "the entries are compacted");
  std::vector<Entry> out;
  if (from >= to) return out;
  uint64_t bytes = 0;
  const auto take = [&](const auto& source, size_t i) {
    for (; i < source.size() && source[i].index < to; ++i) {
      bytes += source[i].data.size();
      if (!out.empty() && bytes > bytes_max) break;
      out.push_back(source[i]);
    }
  };
  if (!recent_.empty() && from >= recent_.front().index) {
    take(recent_, from.value - recent_.front().index.value);
    return out;
  }
  const auto after = fetched_.upper_bound(from);
  if (after != fetched_.begin()) {
    const std::vector<Entry>& read = std::prev(after)->second;
    if (from <= read.back().index) {
      take(read, from.value - read.front().index.value);
      return out;
    }
  }
  wanted_ = from;
  return fail(Code::kUnavailable, "LOG_NOT_IN_MEMORY", "the entries are on disk");
}

}  // namespace uccp::node
