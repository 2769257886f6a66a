#include "machine/recent_rows.h"

#include <utility>

namespace uccp::machine {
namespace {

// Of a node of the map, its key and its value, about.
constexpr size_t kRowOverheadBytes = 128;

size_t bytes_of(const std::optional<std::string>& value) { return value ? value->size() : 0; }

}  // namespace

const std::optional<std::string>* RecentRows::find(std::string_view key) {
  if (const auto young = young_.find(key); young != young_.end()) return &young->second;
  const auto old = old_.find(key);
  if (old == old_.end()) return nullptr;
  auto row = old_.extract(old);
  count(row.key(), row.mapped());
  return &young_.insert(std::move(row)).position->second;
}

void RecentRows::add(std::string_view key, const std::optional<std::string>& value) {
  if (bytes_of(value) > kRowBytesMax) return;
  count(key, value);
  young_.insert_or_assign(std::string(key), value);
}

void RecentRows::update(std::string_view key, const std::optional<std::string>& value) {
  for (Rows* rows : {&young_, &old_}) {
    const auto row = rows->find(key);
    if (row == rows->end()) continue;
    if (bytes_of(value) > kRowBytesMax) {
      rows->erase(row);
      continue;
    }
    const size_t before = bytes_of(row->second);
    row->second = value;
    // Rows that grow count as what they have become; those that shrink are not worth the trouble.
    if (rows == &young_ && bytes_of(value) > before) young_bytes_ += bytes_of(value) - before;
  }
}

void RecentRows::clear() {
  young_.clear();
  old_.clear();
  young_bytes_ = 0;
}

void RecentRows::count(std::string_view key, const std::optional<std::string>& value) {
  if (young_bytes_ > generation_bytes_max_) {
    old_ = std::exchange(young_, {});
    young_bytes_ = 0;
  }
  young_bytes_ += key.size() + bytes_of(value) + kRowOverheadBytes;
}

}  // namespace uccp::machine
