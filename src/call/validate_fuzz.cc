// validate, canonical and project on any bytes: they agree on what a message is, and canonical is idempotent.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "call/contract.h"
#include "call/validate.h"
#include "call/wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::call;
  static const MessagePlan& plan = Contract::get().plan("uccp.v1.ScheduleTaskRequest");
  static const FieldTree tree = [] {
    const std::vector<std::string> paths = {"task.name", "task.inputs.path", "request_id"};
    return *FieldTree::compile(plan, paths);
  }();
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const uccp::Status status = validate(plan, bytes);
  (void)project(plan, bytes, tree);
  const auto once = canonical(plan, bytes);
  if (!once) return 0;
  const auto twice = canonical(plan, *once);
  UCCP_CHECK(twice.has_value() && *twice == *once, "canonical is not idempotent");
  if (status.is_ok()) UCCP_CHECK(validate(plan, *once).is_ok(), "the canonical form of a valid request is not valid");
  return 0;
}
