#include "runtime/os_random.h"

#include <errno.h>
#include <sys/random.h>

#include "base/check.h"

namespace uccp::runtime {

void fill_random_bytes(void* out, size_t size) {
  char* next = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t got = getrandom(next, size, 0);
    if (got < 0 && errno == EINTR) continue;
    UCCP_CHECK(got > 0, "the kernel gives random bytes");
    next += got;
    size -= static_cast<size_t>(got);
  }
}

std::string random_bytes(size_t size) {
  std::string out(size, '\0');
  fill_random_bytes(out.data(), size);
  return out;
}

uint64_t SystemRandom::next() {
  uint64_t value = 0;
  fill_random_bytes(&value, sizeof value);
  return value;
}

}  // namespace uccp::runtime
