#include "raft/log_tail.h"

#include <algorithm>

#include "base/check.h"
#include "raft/core.h"

namespace uccp::raft {

LogTail::LogTail(const LogReader& reader, LogPosition start, LogPosition last)
    : reader_(reader), start_(start), last_(last), durable_(last.index) {
  UCCP_CHECK(start.index <= last.index && start.term <= last.term, "a log does not end before it begins");
}

Result<Term> LogTail::term(LogIndex index) const {
  if (index > last_.index) return Term();
  if (index == last_.index) return last_.term;
  if (index > durable_) return tail_[index.value - durable_.value - 1].term;
  if (index == start_.index) return start_.term;
  if (index < start_.index) return fail(Code::kNotFound, "LOG_COMPACTED", "reading a term: the entry is compacted");
  return reader_.term(index);
}

bool LogTail::holds(LogPosition position) const {
  if (position.index > last_.index) return false;
  const Result<Term> found = term(position.index);
  return found && *found == position.term;
}

LogPosition LogTail::last_not_after(LogPosition position) const {
  LogIndex index = std::min(position.index, last_.index);
  while (index) {
    const Result<Term> found = term(index);
    if (!found) return {Term(), index};
    if (*found <= position.term) return {*found, index};
    index = index.prev();
  }
  return {};
}

Result<std::vector<Entry>> LogTail::entries(LogIndex from, uint64_t bytes_max) const {
  UCCP_CHECK(from && from <= last_.index, "entries are read inside the log");
  if (from <= durable_) {
    if (from <= start_.index) return fail(Code::kNotFound, "LOG_COMPACTED", "reading entries: they are compacted");
    return reader_.entries(from, durable_.next(), bytes_max);
  }
  std::vector<Entry> out;
  uint64_t bytes = 0;
  for (size_t i = from.value - durable_.value - 1; i < tail_.size() && (out.empty() || bytes < bytes_max); ++i) {
    bytes += tail_[i].data.size();
    if (!out.empty() && bytes > bytes_max) break;
    out.push_back(tail_[i]);
  }
  return out;
}

void LogTail::append(Entry entry) {
  UCCP_CHECK(entry.index == last_.index.next() && entry.term >= last_.term, "entries are appended in order");
  last_ = {entry.term, entry.index};
  tail_.push_back(std::move(entry));
}

void LogTail::truncate_to(LogPosition position) {
  UCCP_CHECK(position.index >= start_.index && position.index <= last_.index, "truncation stays inside the log");
  last_ = position;
  durable_ = std::min(durable_, position.index);
  tail_.resize(position.index.value - durable_.value);
}

void LogTail::persisted(LogIndex index) {
  if (index <= durable_) return;
  UCCP_CHECK(index <= last_.index, "only what is in the log becomes durable");
  tail_.erase(tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(index.value - durable_.value));
  durable_ = index;
}

void LogTail::reset(LogPosition position) {
  start_ = last_ = position;
  durable_ = position.index;
  tail_.clear();
}

void LogTail::compact(LogPosition position) {
  if (position.index <= start_.index) return;
  UCCP_CHECK(position.index <= durable_, "only durable entries are compacted");
  start_ = position;
}

}  // namespace uccp::raft
