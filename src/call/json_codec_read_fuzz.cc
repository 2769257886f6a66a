// json_to_wire on any bytes: never crashes, and what it takes can be shown again and means the same.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "call/contract.h"
#include "call/json_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::call;
  static const MessagePlan& plan = Contract::get().plan("uccp.v1.ScheduleTaskRequest");
  const auto wire = json_to_wire(plan, {reinterpret_cast<const char*>(data), size});
  if (!wire) return 0;
  const auto json = wire_to_json(plan, *wire, {.emit = Emit::kSet});
  UCCP_CHECK(json.has_value(), "what was taken cannot be shown");
  const auto again = json_to_wire(plan, *json);
  UCCP_CHECK(again.has_value() && *again == *wire, "the way through JSON changed the message");
  return 0;
}
