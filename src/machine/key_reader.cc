#include "machine/key_reader.h"

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::machine {

std::string group_prefix(GroupId group, StateSlot slot) {
  UCCP_CHECK(group.value < uint64_t{1} << 56 && slot < kStateSlots, "the slot takes the first byte of the prefix");
  return ByteWriter().u64(uint64_t{slot} << 56 | group.value).take();
}

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

std::optional<std::string> GroupView::get(std::string_view key) const {
  auto value = view_->get(prefix_ + std::string(key));
  UCCP_CHECK(value.has_value(), value.has_value() ? "" : value.error().to_string());
  return std::move(*value);
}

void GroupView::scan(std::string_view from, std::string_view to, const Visit& visit) const {
  const std::string end = to.empty() ? prefix_end(prefix_) : prefix_ + std::string(to);
  auto it = view_->iterate();
  for (it->seek(prefix_ + std::string(from)); it->valid() && (end.empty() || it->key() < end); it->next()) {
    if (!visit(it->key().substr(prefix_.size()), it->value())) return;
  }
  UCCP_CHECK(it->status().is_ok(), it->status().to_string());
}

}  // namespace uccp::machine
