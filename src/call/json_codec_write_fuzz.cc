// wire_to_json on any bytes: never crashes; its output is always JSON.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "call/contract.h"
#include "call/json_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::call;
  static const MessagePlan& plan = Contract::get().plan("uccp.v1.Task");
  const auto json = wire_to_json(plan, {reinterpret_cast<const char*>(data), size},
                                 {.emit = Emit::kNumbers, .redact = size % 2 == 0});
  if (!json) return 0;
  const auto back = json_to_wire(plan, *json, {.keep_output_only = true});
  UCCP_CHECK(back.has_value() || back.error().reason() != "JSON_INVALID", "the output is not JSON");
  return 0;
}
