// The policy language: statements that permit or forbid by who calls what on which resource, and by a condition.
//
//   forbid (principal in group "interns", action in ["ScheduleTask", "SubmitTask"], resource in namespace "prod")
//     when { request.task.resources.cpu > 4 && !(context.address in ip "10.0.0.0/8") };
//
// docs/policies.md has the grammar. Everything is checked when a text is compiled: methods and fields against the
// contract, operators against types. So a compiled statement cannot fail when it is evaluated; a field that the request
// leaves out has the zero value of its type. Limits: kStatementsMax, kExpressionNodesMax, kExpressionDepthMax.
// Immutable once compiled; usable from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/policy/access.h"

namespace uccp::call {

inline constexpr size_t kPolicyBytesMax = 16 << 10;
inline constexpr size_t kStatementsMax = 64;
inline constexpr size_t kExpressionNodesMax = 512;
inline constexpr int kExpressionDepthMax = 32;

enum class Effect : uint8_t { kPermit, kForbid };

struct Expression;  // private

class Statement {
 public:
  Effect effect = Effect::kPermit;
  int line = 1;
  // The clauses of the head; empty: any.
  std::string principal;
  std::string group;
  std::string kind;           // "service"
  std::vector<bool> methods;  // by Method::index; empty: all
  std::string resource;       // pattern with `*`
  std::string name_space;
  std::shared_ptr<const Expression> when;    // null: always
  std::shared_ptr<const Expression> unless;  // null: never

  bool covers(const Method& method) const { return methods.empty() || methods[method.index]; }
  // True if head and conditions hold. Requires that query.method is set.
  bool applies(const AccessQuery& query) const;
  // Why it does not, in a few words; empty if it does.
  std::string_view obstacle(const AccessQuery& query) const;
};

// Errors: invalid POLICY_INVALID, "line 2, column 7: there is no method 'ScheduleTsk'; did you mean 'ScheduleTask'?".
Result<std::vector<Statement>> compile_policy(std::string_view text);

}  // namespace uccp::call
