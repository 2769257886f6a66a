#include "runtime/real_clock.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "base/check.h"

namespace uccp::runtime {
namespace {

int64_t read_us(clockid_t clock) {
  timespec now{};
  UCCP_CHECK(clock_gettime(clock, &now) == 0, "the kernel has this clock");
  return static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

// Mapped, so that a test can change it while the program runs. Null without the variable.
const std::atomic<int64_t>* map_offset() {
  const char* const path = std::getenv(kWallOffsetVariable);
  if (path == nullptr || *path == '\0') return nullptr;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  UCCP_CHECK(fd >= 0, "the file with the offset of the wall clock can be opened");
  void* const memory = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  UCCP_CHECK(memory != MAP_FAILED, "the file with the offset of the wall clock can be mapped");
  return static_cast<const std::atomic<int64_t>*>(memory);
}

}  // namespace

BootTime RealClock::boot() const { return {read_us(CLOCK_BOOTTIME)}; }

WallTime RealClock::wall() const {
  static const std::atomic<int64_t>* const offset = map_offset();
  return {read_us(CLOCK_REALTIME) + (offset == nullptr ? 0 : offset->load(std::memory_order_relaxed))};
}

}  // namespace uccp::runtime
