// `--wait` of commands whose answer goes on: a resource with `progress` and `endTime`, such as a backup.
#pragma once

#include <string>

#include "cli/kinds.h"
#include "cli/session.h"

namespace uccp::cli {

// Whether the command begins something that `get` of its noun tells the progress of.
bool can_be_followed(const Catalog& catalog, const Command& command);
// Asks until it has ended, with a bar on a terminal, and answers the last answer of `get`.
Result<std::string> follow_to_end(Session& session, const Command& command, const std::string& response);

}  // namespace uccp::cli
