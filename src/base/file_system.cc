#include "base/file_system.h"

namespace uccp {

Result<std::string> read_file(FileSystem& files, const std::string& path, uint64_t size_max) {
  UCCP_TRY(auto file, files.open(path, OpenMode::kRead));
  UCCP_TRY(uint64_t size, file->size());
  if (size > size_max) {
    return fail(Code::kInvalid, "FILE_TOO_LARGE",
                path + " has " + std::to_string(size) + " bytes; at most " + std::to_string(size_max) + " are read");
  }
  std::string data;
  UCCP_RETURN_IF_ERROR(file->read_at(0, size, data));
  return data;
}

Status write_file_atomically(FileSystem& files, const std::string& path, std::string_view data) {
  const std::string temporary = path + ".tmp";
  UCCP_RETURN_IF_ERROR(files.remove(temporary));
  {
    UCCP_TRY(auto file, files.open(temporary, OpenMode::kCreate));
    UCCP_RETURN_IF_ERROR(file->write_at(0, data));
    UCCP_RETURN_IF_ERROR(file->sync());
  }
  UCCP_RETURN_IF_ERROR(files.rename(temporary, path));
  const size_t slash = path.rfind('/');
  return files.sync_directory(slash == std::string::npos ? "." : path.substr(0, slash));
}

}  // namespace uccp
