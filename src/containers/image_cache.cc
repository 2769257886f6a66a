#include "containers/image_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "containers/archive_reader.h"

namespace uccp::containers {
namespace {

namespace fs = std::filesystem;
using runtime::OwnedFd;

constexpr std::string_view kLock = ".lock";
constexpr int kTurnsMax = 100;

Status lock(const OwnedFd& fd, int how, const std::string& name) {
  while (flock(fd.get(), how) != 0) {
    if (errno != EINTR) return io_error("lock", name);
  }
  return {};
}

bool is_supported(const std::string& media_type) {
  return media_type.starts_with("application/vnd.oci.image.layer.v1.tar") ||
         media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip" ||
         media_type == "application/vnd.docker.image.rootfs.diff.tar";
}

Status unpack(ImageLayout& layout, const Descriptor& descriptor, const std::string& directory,
              const ImageCacheOptions& options, const std::function<void(const std::string&)>& progress) {
  UCCP_TRY(const std::string text, layout.document(descriptor));
  UCCP_TRY(const Manifest manifest, parse_manifest(text));
  UCCP_TRY(const std::string config, layout.document(manifest.config));
  UCCP_RETURN_IF_ERROR(parse_image_config(config));
  std::error_code error;
  fs::remove_all(directory, error);
  if (!fs::create_directories(directory + "/rootfs", error)) return io_error("make", directory);
  const OwnedFd root(open((directory + "/rootfs").c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
  if (!root) return io_error("open", directory);
  UnpackLimits left = options.limits;
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    const Descriptor& layer = manifest.layers[i];
    if (!is_supported(layer.media_type))
      return Status(Code::kInvalid, "IMAGE_INVALID",
                    "a layer has the type " + layer.media_type + ", which is no archive");
    progress("unpacking layer " + std::to_string(i + 1) + " of " + std::to_string(manifest.layers.size()) + ", " +
             std::to_string(layer.size >> 10) + " KiB");
    const std::string scratch = directory + "/layer";
    UCCP_TRY(const std::string file, layout.layer(layer, scratch));
    UCCP_RETURN_IF_ERROR(unpack_layer(file, root.get(), left));
    fs::remove(scratch, error);
  }
  std::ofstream out(directory + "/config.json", std::ios::binary);
  out << config;
  out.close();
  if (!out) return io_error("write", directory + "/config.json");
  return {};
}

// What was used longest ago goes, unless it is in use.
void remove_old(const ImageCacheOptions& options) {
  struct Entry {
    fs::file_time_type used;
    fs::path lock;
  };
  std::vector<Entry> entries;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options.directory, error)) {
    if (entry.path().extension() == kLock && fs::exists(fs::path(entry.path()).replace_extension(), error))
      entries.push_back({fs::last_write_time(entry.path(), error), entry.path()});
  }
  std::ranges::sort(entries, {}, &Entry::used);
  size_t left = entries.size();
  for (const Entry& entry : entries) {
    if (left <= options.images_max) return;
    const OwnedFd fd(open(entry.lock.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue;
    fs::remove_all(fs::path(entry.lock).replace_extension(), error);
    left -= 1;
  }
}

Result<RunConfig> read_config(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return parse_image_config(text);
}

}  // namespace

Result<CachedImage> cached_image(ImageLayout& layout, const Descriptor& manifest, const ImageCacheOptions& options,
                                 const std::function<void(const std::string&)>& progress) {
  const std::string name = manifest.digest.substr(std::string_view("sha256:").size());
  const std::string directory = options.directory + "/" + name;
  const std::string lock_name = directory + std::string(kLock);
  CachedImage image;
  // Not close-on-exec: the program that runs the container holds it.
  image.lock = OwnedFd(open(lock_name.c_str(), O_RDWR | O_CREAT, 0600));
  if (!image.lock) return fail(io_error("open", lock_name));
  std::error_code error;
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    UCCP_RETURN_IF_ERROR(lock(image.lock, LOCK_SH, lock_name));
    if (fs::exists(directory, error)) {
      (void)futimens(image.lock.get(), nullptr);
      image.root = directory + "/rootfs";
      UCCP_TRY(image.config, read_config(directory + "/config.json"));
      return image;
    }
    UCCP_RETURN_IF_ERROR(lock(image.lock, LOCK_EX, lock_name));
    if (fs::exists(directory, error)) continue;
    const std::string unfinished = directory + ".part";
    const Status unpacked = unpack(layout, manifest, unfinished, options, progress);
    if (!unpacked.is_ok()) {
      fs::remove_all(unfinished, error);
      return fail(unpacked);
    }
    if (std::rename(unfinished.c_str(), directory.c_str()) != 0) return fail(io_error("rename", unfinished));
    remove_old(options);
  }
  return fail(Code::kUnavailable, "IMAGE_BUSY",
              "the image " + manifest.digest + " is removed as often as it is unpacked");
}

}  // namespace uccp::containers
