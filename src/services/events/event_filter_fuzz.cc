// Conditions of subscribers from arbitrary text: whatever compiles must decide about events of all contents, and of the
// same event always the same. Behind a line break is the content, of three kinds.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "services/events/event_filter.h"
#include "uccp/v1/events.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  const auto filter = events::EventFilter::compile(std::string_view(input).substr(0, cut));
  if (!filter) {
    UCCP_CHECK(filter.error().reason() == "FILTER_INVALID", "every refusal has one reason");
    return 0;
  }
  const std::string content = cut == std::string::npos ? "" : input.substr(cut + 1);
  v1::Event event;
  event.set_topic("orders.eu");
  event.set_key("k");
  if (is_utf8(content)) event.set_text(content);
  const bool as_text = filter->matches(event.SerializeAsString());
  UCCP_CHECK(filter->matches(event.SerializeAsString()) == as_text, "a condition has one answer");
  event.set_data(content);
  (void)filter->matches(event.SerializeAsString());
  v1::Event bare;
  if (bare.ParseFromString(content)) (void)filter->matches(content);
  return 0;
}
