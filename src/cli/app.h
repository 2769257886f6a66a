// The command line as a whole: words to a command, its outcome to an exit code.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/io.h"
#include "cli/transport.h"

namespace uccp::cli {

struct AppOptions {
  Connect connect;
  std::string_view contract_image;  // descriptors with comments, for help; empty: help shows names only
};

// Runs one command line (without the program's name) and answers the exit code. Prints everything through `io`.
int run(std::span<const std::string> args, const Io& io, const AppOptions& options);

}  // namespace uccp::cli
