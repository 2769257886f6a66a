#include "machine/transaction.h"

namespace uccp::machine {

std::optional<std::string> Transaction::get(std::string_view key) const {
  if (auto it = writes_.find(key); it != writes_.end()) return it->second;
  return base_.get(key);
}

void Transaction::scan(std::string_view from, std::string_view to, const Visit& visit) const {
  auto written = writes_.lower_bound(from);
  const auto written_end = to.empty() ? writes_.end() : writes_.lower_bound(to);
  bool go_on = true;
  // Own writes and the base are merged in key order; an own write hides the base's value.
  base_.scan(from, to, [&](std::string_view key, std::string_view value) {
    while (go_on && written != written_end && written->first < key) {
      if (written->second) go_on = visit(written->first, *written->second);
      ++written;
    }
    if (!go_on) return false;
    if (written != written_end && written->first == key) return true;
    go_on = visit(key, value);
    return go_on;
  });
  for (; go_on && written != written_end; ++written) {
    if (written->second) go_on = visit(written->first, *written->second);
  }
}

void Transaction::put(std::string_view key, std::string value) {
  const auto it = writes_.find(key);
  set(it, key, it != writes_.end() ? it->second : base_.get(key), std::move(value));
}

void Transaction::erase(std::string_view key) {
  const auto it = writes_.find(key);
  set(it, key, it != writes_.end() ? it->second : base_.get(key), std::nullopt);
}

void Transaction::replace(std::string_view key, std::optional<std::string> old, std::optional<std::string> value) {
  set(writes_.find(key), key, std::move(old), std::move(value));
}

void Transaction::set(Writes::iterator at, std::string_view key, std::optional<std::string> old_value,
                      std::optional<std::string> value) {
  const bool was_written = at != writes_.end();
  if (old_value) digest_.remove(key, *old_value);
  if (value) digest_.add(key, *value);
  if (was_written) {
    at->second = std::move(value);
  } else {
    at = writes_.emplace(std::string(key), std::move(value)).first;
  }
  undo_.push_back({at, was_written, std::move(old_value)});
}

void Transaction::rollback() {
  for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) {
    const auto& key = undo->at->first;
    auto& value = undo->at->second;
    if (value) digest_.remove(key, *value);
    if (undo->old_value) digest_.add(key, *undo->old_value);
    if (undo->was_written) {
      value = std::move(undo->old_value);
    } else {
      writes_.erase(undo->at);
    }
  }
  undo_.clear();
}

}  // namespace uccp::machine
