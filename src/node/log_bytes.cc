#include "node/log_bytes.h"

namespace uccp::node {

void LogBytes::append(const std::vector<Entry>& entries) {
  for (const Entry& entry : entries) {
    // Replaced ones are counted once more: they take room in the log until it is shortened.
    while (!marks_.empty() && marks_.back().index >= entry.index) marks_.pop_back();
    total_ += entry.data.size() + sizeof(Entry);
    if (total_ - (marks_.empty() ? 0 : marks_.back().total) >= mark_bytes_) marks_.push_back({entry.index, total_});
  }
}

void LogBytes::drop_before(LogIndex index) {
  while (!marks_.empty() && marks_.front().index <= index) marks_.pop_front();
}

LogIndex LogBytes::last_beyond(uint64_t bytes) const {
  if (total_ <= bytes) return LogIndex();
  for (const Mark& mark : marks_) {
    if (total_ - mark.total <= bytes) return mark.index;
  }
  return marks_.empty() ? LogIndex() : marks_.back().index;
}

}  // namespace uccp::node
