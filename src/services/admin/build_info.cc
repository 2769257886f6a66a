#include "services/admin/build_info.h"

#ifndef UCCP_VERSION
#define UCCP_VERSION "0.0.0"
#endif
#ifndef UCCP_COMMIT
#define UCCP_COMMIT ""
#endif

namespace uccp::admin {

std::string_view program_version() { return UCCP_VERSION; }

std::string_view program_commit() {
  constexpr std::string_view commit = UCCP_COMMIT;
  return commit.empty() ? "unknown" : commit;
}

std::string_view program_build() {
#if defined(__x86_64__)
  return "clang " __clang_version__ ", x86_64-linux";
#elif defined(__aarch64__)
  return "clang " __clang_version__ ", aarch64-linux";
#else
  return "clang " __clang_version__;
#endif
}

}  // namespace uccp::admin
