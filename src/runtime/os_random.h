// Randomness of the kernel (getrandom): for secrets, ids and the seeds of SeededRandom.
//
// Callable from any thread; holds no state. A kernel that cannot give random bytes stops the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/random.h"

namespace uccp::runtime {

// Fills `size` bytes at `out`. Blocks only until the kernel's pool is initialized after boot. Fit for secrets.
void fill_random_bytes(void* out, size_t size);
// `size` random bytes. Fit for secrets.
std::string random_bytes(size_t size);

// One system call a number: use it to seed, and SeededRandom for streams of numbers.
class SystemRandom final : public Random {
 public:
  uint64_t next() override;
};

}  // namespace uccp::runtime
