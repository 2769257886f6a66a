#include "runtime/core_dumps.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace uccp::runtime {

Status forbid_core_dumps() {
  // The limit alone does not count where core_pattern names a program; that the process is not dumpable does.
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) == 0 && ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) return Status::ok();
  return Status(Code::kUnavailable, "CORE_DUMPS",
                std::string("core dumps cannot be turned off: ") + std::strerror(errno) +
                    "; set core_dumps to true to start anyway");
}

}  // namespace uccp::runtime
