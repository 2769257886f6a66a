// A layer of an image, put on top of the tree that the layers below it have made.
//
// A layer is somebody's archive: nothing of it reaches outside of the tree, whatever its paths and links say. Each path
// is resolved by the kernel with the tree as its root (openat2, RESOLVE_IN_ROOT), so that an absolute link or a ".."
// leads back into the tree. Devices are left out, owners and extended attributes are not kept: all files are whose user
// unpacks. Directories stay writable and files readable for that user.
// Source: OCI Image Layer Filesystem Changeset 1.1 (whiteouts).
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace uccp::containers {

struct UnpackLimits {
  uint64_t bytes = 16ull << 30;  // of files, unpacked
  uint64_t entries = 1'000'000;
};

// Puts the archive `file` (tar, plain or compressed with gzip or zstd) onto the tree below the directory
// `root`; `left` is counted down. On an error the tree may be half changed. Errors: invalid LAYER_INVALID (an archive
// that is none, a path with ".."), exhausted IMAGE_TOO_LARGE, NO_SPACE; unavailable IO_ERROR.
Status unpack_layer(const std::string& file, int root, UnpackLimits& left);

}  // namespace uccp::containers
