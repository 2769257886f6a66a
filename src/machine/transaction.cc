#include "machine/transaction.h"

namespace uccp::machine {

std::optional<std::string> Transaction::get(std::string_view key) const {
  if (auto it = writes_.find(key); it != writes_.end()) return it->second;
  return read(key);
}

std::optional<std::string> Transaction::read(std::string_view key) const {
  if (const auto* known = recent_.find(key)) return *known;
  std::optional<std::string> value = base_.get(key);
  recent_.add(key, value);
  return value;
}

Transaction::Place Transaction::find(std::string_view key) {
  const auto at = writes_.lower_bound(key);
  return {at, at != writes_.end() && at->first == key};
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
  const Place place = find(key);
  set(place, key, place.written ? place.at->second : read(key), std::move(value));
}

void Transaction::erase(std::string_view key) {
  const Place place = find(key);
  set(place, key, place.written ? place.at->second : read(key), std::nullopt);
}

void Transaction::replace(std::string_view key, std::optional<std::string> old, std::optional<std::string> value) {
  set(find(key), key, std::move(old), std::move(value));
}

void Transaction::set(Place place, std::string_view key, std::optional<std::string> old_value,
                      std::optional<std::string> value) {
  if (old_value) digest_.remove(key, *old_value);
  if (value) digest_.add(key, *value);
  if (place.written) place.at->second = std::move(value);
  else place.at = writes_.emplace_hint(place.at, std::string(key), std::move(value));
  undo_.push_back({place.at, place.written, std::move(old_value)});
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
