// Entries of an archive, one after the other.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::containers {

class ArchiveReader {
 public:
  enum class Filters : uint8_t { kNone, kCompressed };

  // Errors: not_found IMAGE_NOT_FOUND; invalid LAYER_INVALID.
  static Result<ArchiveReader> open(const std::string& file, Filters filters);

  // The next entry, or nothing at the end. Valid until the next call. Errors: invalid LAYER_INVALID.
  Result<archive_entry*> next();
  // The content of the present entry goes into `fd`. Errors: those of next(); exhausted IMAGE_TOO_LARGE if it is more
  // than `bytes_max`, NO_SPACE; unavailable IO_ERROR.
  Result<uint64_t> write_to(int fd, uint64_t bytes_max);
  // All of it, at most `bytes_max`. Errors as of write_to().
  Result<std::string> read_all(uint64_t bytes_max);

 private:
  struct Free {
    void operator()(archive* one) const { archive_read_free(one); }
  };
  explicit ArchiveReader(std::string file) : file_(std::move(file)), archive_(archive_read_new()) {}
  Status invalid(const std::string& what) const;

  std::string file_;
  std::unique_ptr<archive, Free> archive_;
};

// "./a/b/" as "a/b"; nothing for a path with "..", and for one that is too long.
std::optional<std::string> inner_path(std::string_view path);

// What errno says of an operation on `path`: exhausted NO_SPACE, else unavailable IO_ERROR.
Status io_error(const char* what, const std::string& path);

}  // namespace uccp::containers
