#include "agent/task_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace uccp::agent {
namespace {

Status io_error(const std::string& what, const std::string& path) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  return Status(full ? Code::kExhausted : Code::kUnavailable, full ? "NO_SPACE" : "IO_ERROR",
                "cannot " + what + " " + path + ": " + std::strerror(error));
}

Status make_directory(const std::string& path, const std::optional<FolderOwner>& owner) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return io_error("make", path);
  if (owner && chown(path.c_str(), owner->uid, owner->gid) != 0) return io_error("give away", path);
  return {};
}

// The directories of `relative` below `folder`, the last part included.
Status make_directories(const std::string& folder, std::string_view relative, const std::optional<FolderOwner>& owner) {
  for (size_t at = 0; at < relative.size();) {
    const size_t slash = std::min(relative.find('/', at), relative.size());
    UCCP_RETURN_IF_ERROR(make_directory(folder + "/" + std::string(relative.substr(0, slash)), owner));
    at = slash + 1;
  }
  return {};
}

Status copy_content(int from, int to, const std::string& path) {
  char buffer[64 << 10];
  for (;;) {
    const ssize_t got = read(from, buffer, sizeof buffer);
    if (got < 0) return io_error("read the content of", path);
    if (got == 0) return {};
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = write(to, buffer + done, static_cast<size_t>(got - done));
      if (put < 0) return io_error("write", path);
      done += put;
    }
  }
}

Status place(const std::string& folder, const InputFile& input, const std::optional<FolderOwner>& owner) {
  if (!is_inner_path(input.path)) {
    return Status(Code::kInvalid, "INPUT_PATH_INVALID",
                  "input path \"" + input.path + "\" leaves the task's folder; use a relative path without \"..\"");
  }
  if (const size_t slash = input.path.rfind('/'); slash != std::string::npos) {
    UCCP_RETURN_IF_ERROR(make_directories(folder, std::string_view(input.path).substr(0, slash), owner));
  }
  const std::string path = folder + "/" + input.path;
  const int to = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (to < 0) return io_error("make", path);
  Status status;
  if (input.source_path.empty()) {
    if (write(to, input.data.data(), input.data.size()) != static_cast<ssize_t>(input.data.size())) {
      status = io_error("write", path);
    }
  } else {
    const int from = open(input.source_path.c_str(), O_RDONLY | O_CLOEXEC);
    status = from < 0 ? io_error("open", input.source_path) : copy_content(from, to, path);
    if (from >= 0) close(from);
  }
  if (status.is_ok() && owner && fchown(to, owner->uid, owner->gid) != 0) status = io_error("give away", path);
  if (status.is_ok() && fchmod(to, static_cast<mode_t>(input.mode) & 0777) != 0)
    status = io_error("set the mode of", path);
  close(to);
  return status;
}

}  // namespace

bool is_inner_path(std::string_view path) {
  if (path.empty() || path.size() > 1024 || path.find('\0') != std::string_view::npos) return false;
  for (size_t at = 0; at <= path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, slash - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = slash + 1;
  }
  return true;
}

Status make_task_folder(const std::string& folder, const AttemptSpec& spec, const std::optional<FolderOwner>& owner) {
  UCCP_RETURN_IF_ERROR(make_directory(folder, owner));
  UCCP_RETURN_IF_ERROR(make_directory(folder + "/" + std::string(kTemporaryName), owner));
  for (const InputFile& input : spec.inputs) UCCP_RETURN_IF_ERROR(place(folder, input, owner));
  if (spec.working_dir.empty() || spec.working_dir == ".") return {};
  if (!is_inner_path(spec.working_dir)) {
    return Status(
        Code::kInvalid, "INPUT_PATH_INVALID",
        "working folder \"" + spec.working_dir + "\" leaves the task's folder; use a relative path without \"..\"");
  }
  return make_directories(folder, spec.working_dir, owner);
}

Status remove_task_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (!error) return {};
  return Status(Code::kUnavailable, "IO_ERROR", "cannot remove " + folder + ": " + error.message());
}

}  // namespace uccp::agent
