// What a task names its image by, and where that is.
//
//   oci-archive:PATH[:TAG]  an archive of an image layout, among the inputs of the task
//   oci:PATH[:TAG]          the same, unpacked
//   NAME[:TAG]              what the operator has put into the worker's directory of images: NAME.tar, NAME with a
//                           layout, or NAME with a bundle
// The first two are those of containers-transports(5). Pure.
#pragma once

#include <string>

#include "base/status.h"

namespace uccp::containers {

struct ImageReference {
  bool from_worker = false;  // NAME
  std::string path;          // relative
  std::string tag;
};

// Errors: invalid IMAGE_REFERENCE_INVALID.
Result<ImageReference> parse_image_reference(const std::string& text);

}  // namespace uccp::containers
