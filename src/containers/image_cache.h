// Root file systems of images, unpacked once and kept in a directory of the user that unpacks them.
//
// <cache>/<digest>/rootfs and <cache>/<digest>/config.json are there as a whole or not at all. Whoever uses one holds a
// shared lock on <cache>/<digest>.lock, which lives on through exec; who unpacks or removes one has it alone.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"
#include "containers/image_layout.h"
#include "containers/layer.h"
#include "runtime/owned_fd.h"

namespace uccp::containers {

struct ImageCacheOptions {
  std::string directory;  // is there, and belongs to the caller's user
  size_t images_max = 8;  // what was used longest ago goes
  UnpackLimits limits;
};

struct CachedImage {
  std::string root;  // of the file system; not to be written to
  RunConfig config;
  runtime::OwnedFd lock;  // it stays while this is open; inherited by programs that are executed
};

// `progress` hears what is being done when it takes long. Errors: those of ImageLayout and unpack_layer.
Result<CachedImage> cached_image(ImageLayout& layout, const Descriptor& manifest, const ImageCacheOptions& options,
                                 const std::function<void(const std::string&)>& progress);

}  // namespace uccp::containers
