#include "shm/shared_file.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace uccp::shm {
namespace {

Status membarrier(int command) {
  if (syscall(SYS_membarrier, command, 0, 0) == 0) return {};
  return Status(Code::kUnavailable, "BARRIER_MISSING",
                std::string("objects cannot be shared: the kernel refuses membarrier: ") + std::strerror(errno));
}

}  // namespace

Result<Mapping> Mapping::of(int fd, uint64_t size, Access access) {
  const int protection = access == Access::kWrite ? PROT_READ | PROT_WRITE : PROT_READ;
  void* const at = mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    return fail(Code::kUnavailable, "MEMORY_MAP_FAILED",
                "cannot map " + std::to_string(size) + " bytes of shared memory: " + std::strerror(errno));
  }
  Mapping mapping;
  mapping.data_ = static_cast<char*>(at);
  mapping.size_ = size;
  return mapping;
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

Result<SharedFile> SharedFile::create(const std::string& name, uint64_t size, Writers writers) {
  SharedFile file{.fd = runtime::OwnedFd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING))};
  const auto failed = [&](const char* what) {
    return fail(Code::kUnavailable, "MEMORY_FILE_FAILED",
                std::string("cannot ") + what + " shared memory of " + std::to_string(size) +
                    " bytes: " + std::strerror(errno));
  };
  if (!file.fd) return failed("make");
  if (ftruncate(file.fd.get(), static_cast<off_t>(size)) != 0) return failed("size");
  UCCP_TRY(file.memory, Mapping::of(file.fd.get(), size, Access::kWrite));
  int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  // The mapping above stays writable; no other one is from now on.
  if (writers == Writers::kMakerAlone) seals |= F_SEAL_FUTURE_WRITE;
  if (fcntl(file.fd.get(), F_ADD_SEALS, seals) != 0) return failed("seal");
  return file;
}

Status join_barriers() { return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED); }
Status pass_barrier() { return membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED); }

}  // namespace uccp::shm
