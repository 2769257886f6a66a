// Filters, orders and selectors from arbitrary text: whatever compiles must evaluate on arbitrary bytes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "call/contract.h"
#include "call/listing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const uccp::call::MessagePlan& plan = uccp::call::Contract::get().plan("uccp.v1.ServiceRegistration");
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  const std::string_view text = input.substr(0, cut);
  const std::string_view item = cut == std::string_view::npos ? std::string_view() : input.substr(cut + 1);
  if (auto filter = uccp::call::Filter::compile(plan, text)) (void)filter->matches(item);
  if (auto order = uccp::call::SortOrder::compile(plan, text)) (void)order->position(item);
  if (auto selector = uccp::call::LabelSelector::compile(text)) (void)selector->matches(item, 12);
  (void)uccp::call::PageTokenSigner("key").open(text);
  return 0;
}
