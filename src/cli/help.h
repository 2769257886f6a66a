// Help at every level, from the catalog and the comments of the contract.
#pragma once

#include <string>
#include <vector>

#include "cli/catalog.h"
#include "cli/flag.h"
#include "cli/session.h"

namespace uccp::cli {

// Nesting of the request's fields whose flags are shown; the others are reached by their paths.
inline constexpr size_t kHelpDepthMax = 1;

std::string top_help(const Session& session);
std::string noun_help(const Session& session, const std::string& noun);
// `extra`: the flags that this command has beside those of its request.
std::string command_help(Session& session, const Command& command, const std::vector<Flag>& extra);
std::string api_help();
std::string file_command_help(const Session& session, const FileCommand& command);
// "usage: uccp-cli service register SERVICE-NAME ADDRESS PORT [--flags]"
std::string usage_line(const Command& command);
// Lines that begin with two blanks; empty: none.
std::string examples_for(const Command& command);
// What a flag is for, and its values where they are words.
std::string flag_help(const Session& session, const Flag& flag);
// What the comment of a method is filed under.
std::string comment_name(const call::Method& method);

}  // namespace uccp::cli
