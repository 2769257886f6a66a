#include "containers/image_reference.h"

#include "containers/archive_reader.h"

namespace uccp::containers {

Result<ImageReference> parse_image_reference(const std::string& text) {
  const auto invalid = [&](const std::string& what) {
    return fail(Code::kInvalid, "IMAGE_REFERENCE_INVALID", "the image " + text + " " + what);
  };
  ImageReference out;
  std::string rest = text;
  out.from_worker = true;
  for (const std::string_view transport : {"oci-archive:", "oci:"}) {
    if (!out.from_worker || !text.starts_with(transport)) continue;
    out.from_worker = false;
    rest = text.substr(transport.size());
  }
  if (rest.find("://") != std::string::npos || (out.from_worker && rest.starts_with("docker:")))
    return invalid("is in a registry; images are not pulled, so give it as an input: oci-archive:PATH");
  const size_t colon = rest.find(':');
  const auto path = inner_path(rest.substr(0, colon));
  if (!path || path->empty() || *path != rest.substr(0, colon))
    return invalid("must name a file by a relative path without \"..\", such as oci-archive:image.tar");
  out.path = *path;
  if (colon != std::string::npos) out.tag = rest.substr(colon + 1);
  if (colon != std::string::npos && out.tag.empty()) return invalid("ends with a colon, and names no tag behind it");
  return out;
}

}  // namespace uccp::containers
