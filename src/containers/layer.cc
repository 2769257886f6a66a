#include "containers/layer.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "containers/archive_reader.h"
#include "runtime/owned_fd.h"

namespace uccp::containers {
namespace {

using runtime::OwnedFd;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";

struct Split {
  std::string parent, name;
};

Split split(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

// The tree of an image while layers are put onto it.
class Tree {
 public:
  Tree(int root, const std::string& layer) : root_(root), layer_(layer) {}

  // A directory of the tree, "" is its root. Without `make` what is missing is no error: the descriptor is empty.
  Result<OwnedFd> directory(const std::string& path, bool make) {
    open_how how{};
    how.flags = O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    const char* const name = path.empty() ? "." : path.c_str();
    OwnedFd found(static_cast<int>(syscall(SYS_openat2, root_, name, &how, sizeof how)));
    if (found || (errno == ENOENT && !make)) return found;
    if (errno != ENOENT) return fail(refused("open the directory", path));
    const Split at = split(path);
    UCCP_TRY(const OwnedFd parent, directory(at.parent, true));
    if (mkdirat(parent.get(), at.name.c_str(), 0755) != 0) return fail(refused("make the directory", path));
    found = OwnedFd(openat(parent.get(), at.name.c_str(), O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!found) return fail(refused("open the directory", path));
    return found;
  }

  Status remove(int parent, const std::string& name) {
    if (unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return {};
    if (errno != EISDIR && errno != EPERM) return refused("remove", name);
    // By the descriptor, so that no link on the way is followed; remove_all follows none below.
    std::error_code error;
    std::filesystem::remove_all("/proc/self/fd/" + std::to_string(parent) + "/" + name, error);
    if (!error) return {};
    errno = error.value();
    return refused("remove", name);
  }

  Status remove_all_in(int directory) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd/" + std::to_string(directory), error)) {
      UCCP_RETURN_IF_ERROR(remove(directory, entry.path().filename().string()));
    }
    return {};
  }

  Status put(ArchiveReader& reader, archive_entry* entry, const std::string& path, UnpackLimits& left) {
    const Split at = split(path);
    UCCP_TRY(const OwnedFd parent, directory(at.parent, true));
    const mode_t mode = archive_entry_perm(entry) & 0777;
    if (const char* target = archive_entry_hardlink(entry)) return put_hard_link(target, parent.get(), at.name, path);
    switch (archive_entry_filetype(entry)) {
      case AE_IFDIR: return put_directory(parent.get(), at.name, mode, path);
      case AE_IFREG: return put_file(reader, parent.get(), at.name, mode, path, left);
      case AE_IFLNK: {
        UCCP_RETURN_IF_ERROR(remove(parent.get(), at.name));
        const char* const target = archive_entry_symlink(entry);
        if (target == nullptr || symlinkat(target, parent.get(), at.name.c_str()) != 0) return refused("link", path);
        return {};
      }
      case AE_IFIFO: {
        UCCP_RETURN_IF_ERROR(remove(parent.get(), at.name));
        return mkfifoat(parent.get(), at.name.c_str(), mode) == 0 ? Status() : refused("make the pipe", path);
      }
      default: return {};  // devices, sockets
    }
  }

  Status bad_path(const std::string& path) const {
    return Status(Code::kInvalid, "LAYER_INVALID",
                  "the layer " + layer_ + " has the path " + path + ", which would leave the image");
  }

  Status refused(const char* what, const std::string& path) const {
    if (errno == ENOTDIR || errno == EEXIST || errno == ELOOP) {
      return Status(Code::kInvalid, "LAYER_INVALID",
                    "the layer " + layer_ + " has " + path + " below something that is no directory");
    }
    return io_error(what, path + " of the layer " + layer_);
  }

 private:
  Status put_directory(int parent, const std::string& name, mode_t mode, const std::string& path) {
    struct stat info{};
    const bool there = fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
    if (!there) {
      UCCP_RETURN_IF_ERROR(remove(parent, name));
      if (mkdirat(parent, name.c_str(), 0700) != 0) return refused("make the directory", path);
    }
    // It is a directory and nobody else works here, so that no link is followed.
    return fchmodat(parent, name.c_str(), mode | 0700, 0) == 0 ? Status() : refused("change the mode of", path);
  }

  Status put_file(ArchiveReader& reader, int parent, const std::string& name, mode_t mode, const std::string& path,
                  UnpackLimits& left) {
    UCCP_RETURN_IF_ERROR(remove(parent, name));
    const OwnedFd file(openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) return refused("make the file", path);
    UCCP_TRY(const uint64_t written, reader.write_to(file.get(), left.bytes));
    left.bytes -= written;
    return fchmod(file.get(), mode | 0400) == 0 ? Status() : refused("change the mode of", path);
  }

  Status put_hard_link(const char* target, int parent, const std::string& name, const std::string& path) {
    const auto inner = inner_path(target);
    if (!inner || inner->empty()) return bad_path(target);
    const Split to = split(*inner);
    UCCP_TRY(const OwnedFd directory_of_target, directory(to.parent, false));
    if (*inner == path) return {};
    UCCP_RETURN_IF_ERROR(remove(parent, name));
    if (directory_of_target && linkat(directory_of_target.get(), to.name.c_str(), parent, name.c_str(), 0) == 0)
      return {};
    return Status(Code::kInvalid, "LAYER_INVALID",
                  "the layer " + layer_ + " links " + path + " to " + *inner + ", which is not there");
  }

  const int root_;
  const std::string& layer_;
};

// The path of an entry; empty for the root itself.
Result<std::string> path_of(const Tree& tree, archive_entry* entry) {
  const char* const name = archive_entry_pathname(entry);
  const auto path = name == nullptr ? std::nullopt : inner_path(name);
  if (!path) return fail(tree.bad_path(name == nullptr ? "(none)" : name));
  return *path;
}

// Whiteouts are about the layers below alone, so they come first wherever they stand in the archive.
Status apply_whiteouts(const std::string& file, Tree& tree, UnpackLimits& left) {
  UCCP_TRY(ArchiveReader reader, ArchiveReader::open(file, ArchiveReader::Filters::kCompressed));
  while (true) {
    UCCP_TRY(archive_entry* const entry, reader.next());
    if (entry == nullptr) return {};
    if (left.entries-- == 0) return Status(Code::kExhausted, "IMAGE_TOO_LARGE", "the image has too many files");
    UCCP_TRY(const std::string path, path_of(tree, entry));
    const Split at = split(path);
    if (!at.name.starts_with(kWhiteout)) continue;
    UCCP_TRY(const OwnedFd parent, tree.directory(at.parent, false));
    if (!parent) continue;
    const std::string hidden = at.name.substr(kWhiteout.size());
    if (at.name == kOpaque) UCCP_RETURN_IF_ERROR(tree.remove_all_in(parent.get()));
    else if (hidden.empty() || hidden == "." || hidden == "..") return tree.bad_path(path);
    else UCCP_RETURN_IF_ERROR(tree.remove(parent.get(), hidden));
  }
}

}  // namespace

Status unpack_layer(const std::string& file, int root, UnpackLimits& left) {
  Tree tree(root, file);
  UCCP_RETURN_IF_ERROR(apply_whiteouts(file, tree, left));
  UCCP_TRY(ArchiveReader reader, ArchiveReader::open(file, ArchiveReader::Filters::kCompressed));
  while (true) {
    UCCP_TRY(archive_entry* const entry, reader.next());
    if (entry == nullptr) return {};
    UCCP_TRY(const std::string path, path_of(tree, entry));
    if (path.empty() || split(path).name.starts_with(kWhiteout)) continue;
    UCCP_RETURN_IF_ERROR(tree.put(reader, entry, path, left));
  }
}

}  // namespace uccp::containers
