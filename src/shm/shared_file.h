// Memory that processes share: a memory file that none of them can cut off, and a mapping of it.
// Thread: any; the content is its users' business.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "runtime/owned_fd.h"

namespace uccp::shm {

enum class Access : uint8_t { kRead, kWrite };

// A mapping, which ends with its owner.
class Mapping {
 public:
  Mapping() = default;
  // Maps `size` bytes of a file. Errors: unavailable MEMORY_MAP_FAILED.
  static Result<Mapping> of(int fd, uint64_t size, Access access);
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  char* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  uint64_t size_ = 0;
};

// Who else than its maker may write.
enum class Writers : uint8_t { kMakerAlone, kWhoeverHasIt };

// A file of zeros whose size never changes, mapped here for writing.
struct SharedFile {
  runtime::OwnedFd fd;
  Mapping memory;

  // Errors: unavailable MEMORY_FILE_FAILED, MEMORY_MAP_FAILED.
  static Result<SharedFile> create(const std::string& name, uint64_t size, Writers writers);
};

// A process that wants to read shared objects says so to the kernel once. Errors: unavailable BARRIER_MISSING.
Status join_barriers();
// When it returns, every processor that runs a process that has joined has passed a memory barrier. Errors: as above.
Status pass_barrier();

}  // namespace uccp::shm
