#include "containers/archive_reader.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace uccp::containers {
namespace {

constexpr size_t kReadBytes = 256u << 10;
constexpr size_t kPathBytesMax = 4096;

}  // namespace

Status io_error(const char* what, const std::string& path) {
  const int error = errno;
  const std::string message = std::string("cannot ") + what + " " + path + ": " + std::strerror(error);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) return Status(Code::kExhausted, "NO_SPACE", message);
  return Status(Code::kUnavailable, "IO_ERROR", message);
}

std::optional<std::string> inner_path(std::string_view path) {
  std::string out;
  if (path.size() > kPathBytesMax) return std::nullopt;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") return std::nullopt;
    if (!out.empty()) out += '/';
    out += part;
  }
  return out;
}

Status ArchiveReader::invalid(const std::string& what) const {
  const char* said = archive_error_string(archive_.get());
  return Status(Code::kInvalid, "LAYER_INVALID",
                file_ + " " + what + (said == nullptr ? "" : std::string(": ") + said));
}

Result<ArchiveReader> ArchiveReader::open(const std::string& file, Filters filters) {
  ArchiveReader reader(file);
  archive* const one = reader.archive_.get();
  archive_read_support_format_tar(one);
  if (filters == Filters::kCompressed) {
    archive_read_support_filter_gzip(one);
    archive_read_support_filter_zstd(one);
  }
  if (access(file.c_str(), R_OK) != 0)
    return fail(Code::kNotFound, "IMAGE_NOT_FOUND", "cannot read " + file + ": " + std::strerror(errno));
  if (archive_read_open_filename(one, file.c_str(), kReadBytes) != ARCHIVE_OK)
    return fail(reader.invalid("is not a tar archive"));
  return reader;
}

Result<archive_entry*> ArchiveReader::next() {
  archive_entry* entry = nullptr;
  const int code = archive_read_next_header(archive_.get(), &entry);
  if (code == ARCHIVE_EOF) return nullptr;
  if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return fail(invalid("cannot be read as a tar archive"));
  return entry;
}

Result<uint64_t> ArchiveReader::write_to(int fd, uint64_t bytes_max) {
  uint64_t end = 0;
  while (true) {
    const void* bytes = nullptr;
    size_t size = 0;
    int64_t offset = 0;
    const int code = archive_read_data_block(archive_.get(), &bytes, &size, &offset);
    if (code == ARCHIVE_EOF) break;
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return fail(invalid("ends in the middle of a file"));
    end = static_cast<uint64_t>(offset) + size;
    if (offset < 0 || end > bytes_max) return fail(Code::kExhausted, "IMAGE_TOO_LARGE", file_ + " holds too much");
    for (size_t done = 0; done < size;) {
      const ssize_t put =
          pwrite(fd, static_cast<const char*>(bytes) + done, size - done, offset + static_cast<int64_t>(done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return fail(io_error("write what is in", file_));
      done += static_cast<size_t>(put);
    }
  }
  return end;
}

Result<std::string> ArchiveReader::read_all(uint64_t bytes_max) {
  std::string out;
  while (true) {
    const void* bytes = nullptr;
    size_t size = 0;
    int64_t offset = 0;
    const int code = archive_read_data_block(archive_.get(), &bytes, &size, &offset);
    if (code == ARCHIVE_EOF) return out;
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return fail(invalid("ends in the middle of a file"));
    if (offset < 0 || static_cast<uint64_t>(offset) + size > bytes_max)
      return fail(Code::kExhausted, "IMAGE_TOO_LARGE", file_ + " holds a document of more than it may");
    out.resize(static_cast<size_t>(offset));
    out.append(static_cast<const char*>(bytes), size);
  }
}

}  // namespace uccp::containers
