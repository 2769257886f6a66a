#include "services/kv/creation_order.h"

namespace uccp::kv {

using machine::Scope;

const CreationOrder::Keys* CreationOrder::find(const Scope& scope, std::string_view prefix) {
  const auto names = by_name_.find(scope);
  if (names == by_name_.end()) return nullptr;
  const auto found = names->second.find(prefix);
  if (found == names->second.end()) return nullptr;
  known_.splice(known_.begin(), known_, found->second);
  return &found->second->keys;
}

void CreationOrder::learn(const Scope& scope, std::string_view prefix, Keys keys) {
  if (!takes(prefix) || find(scope, prefix) != nullptr || keys.size() > kKeysOfPrefixMax) return;
  keys_ += keys.size();
  known_.push_front({{scope, std::string(prefix)}, std::move(keys)});
  by_name_[scope].insert_or_assign(std::string(prefix), known_.begin());
  while (known_.size() > kPrefixesMax || keys_ > kKeysMax) drop(std::prev(known_.end()));
}

template <typename Visit>
void CreationOrder::each_above(const Scope& scope, std::string_view key, const Visit& visit) {
  if (known_.empty()) return;
  const auto names = by_name_.find(scope);
  if (names == by_name_.end()) return;
  for (size_t end = key.find('/'); end != std::string_view::npos; end = key.find('/', end + 1)) {
    const auto found = names->second.find(key.substr(0, end + 1));
    if (found == names->second.end()) continue;
    visit(found->second);
  }
}

void CreationOrder::put(const Scope& scope, std::string_view key, uint64_t created, size_t row_bytes) {
  each_above(scope, key, [&](Order::iterator known) {
    keys_ += known->keys.emplace(created, key).second ? 1 : 0;
    if (row_bytes > kRowBytesMax || known->keys.size() > kKeysOfPrefixMax) drop(known);
  });
}

void CreationOrder::erase(const Scope& scope, std::string_view key, uint64_t created) {
  each_above(scope, key, [&](Order::iterator known) { keys_ -= known->keys.erase({created, std::string(key)}); });
}

void CreationOrder::drop(Order::iterator known) {
  keys_ -= known->keys.size();
  by_name_[known->name.first].erase(known->name.second);
  known_.erase(known);
}

void CreationOrder::forget() {
  known_.clear();
  by_name_.clear();
  keys_ = 0;
}

}  // namespace uccp::kv
