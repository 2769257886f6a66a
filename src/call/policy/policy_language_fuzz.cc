// Any text: it compiles to statements that can be evaluated, or to an error with a place.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "call/contract.h"
#include "call/policy/policy_language.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto statements = uccp::call::compile_policy(text);
  if (!statements) {
    UCCP_CHECK(statements.error().message().starts_with("line "), "an error says where");
    return 0;
  }
  uccp::call::Principal principal;
  principal.name = "ana";
  principal.groups = {"devs"};
  for (const uccp::call::Statement& statement : *statements) {
    for (const uccp::call::Method& method : uccp::call::Contract::get().methods()) {
      if (!statement.covers(method)) continue;
      // The text itself as request: whatever bytes come, conditions end.
      (void)statement.applies({.principal = principal,
                               .method = &method,
                               .name_space = "default",
                               .request = text,
                               .address = "10.0.0.1:1",
                               .door = "http"});
      break;
    }
  }
  return 0;
}
