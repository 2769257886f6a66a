// What the command line says when something failed, and with which exit code.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cli/settings.h"

namespace uccp::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

struct ErrorContext {
  std::string noun;        // of the command, for hints; empty: none
  std::string request_id;  // of a change; empty: none
  bool can_list = false;   // the noun has a list command
};

// For standard error, ending with a line break: "error: ...", a line a wrong field, "hint: ..."; or problem+json.
std::string render_error(const Status& status, const Settings& settings, const ErrorContext& context);
// "What to do" in one sentence; empty: nothing is known.
std::string hint_for(const Status& status, const ErrorContext& context);
// The same error with `where` in front of its message: "roles.yaml line 3: ...".
Status located(const std::string& where, const Status& status);
int exit_code(const Status& status);
// The table of exit codes, for help.
std::string exit_code_help();

}  // namespace uccp::cli
