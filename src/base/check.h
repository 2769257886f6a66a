// Invariant checks that stay on in release builds.
//
// UCCP_CHECK is for programmer errors only: a false condition means that the process can no longer be trusted with
// data, so it prints where and why, and aborts. Input that a user or a peer can send is never checked with it.
#pragma once

#include <string_view>

namespace uccp {

// Prints the failed condition with its place to stderr and aborts. Never returns.
[[noreturn]] void check_failed(const char* condition, const char* file, int line, std::string_view why);

}  // namespace uccp

#define UCCP_CHECK(condition, why)                                 \
  do {                                                             \
    if (!(condition)) [[unlikely]]                                 \
      ::uccp::check_failed(#condition, __FILE__, __LINE__, (why)); \
  } while (false)
