// Contexts: clusters by name. Each is a context file of its own in the user's configuration folder, beside a file that
// names the one in use; so a context has the form that `uccp dev` and the cluster scripts write.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/io.h"

namespace uccp::cli {

// The folder: $UCCP_CONFIG_DIR, else $XDG_CONFIG_HOME/uccp, else $HOME/.config/uccp; empty if none is set.
std::string config_folder(const Io& io);

// The names, in order.
std::vector<std::string> context_names(const Io& io);
// The one in use; empty: none.
std::string current_context(const Io& io);
// The file of a context. Errors: invalid CONTEXT_INVALID: no such name, with a suggestion; no folder to look in.
Result<std::string> context_path(const Io& io, std::string_view name);
// Errors: invalid CONTEXT_INVALID for a name that is not letters, digits, '-', '_' and '.'; what writing answers.
Status write_context(const Io& io, std::string_view name, std::string_view json);
Status use_context(const Io& io, std::string_view name);
// Also ends its use.
Status delete_context(const Io& io, std::string_view name);

}  // namespace uccp::cli
