// Any bytes as the documents of an image: refused for one reason, or digests that are fit as paths.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "containers/image_reference.h"
#include "containers/oci_documents.h"

namespace {

using namespace uccp;

void check(const containers::Descriptor& one) {
  UCCP_CHECK(one.path().size() == std::string_view("blobs/sha256/").size() + 64, "a digest has 64 digits");
  UCCP_CHECK(one.path().find("..") == std::string::npos, "no digest leads elsewhere");
}

template <class Parsed>
bool taken(const Parsed& parsed, std::string_view reason) {
  if (!parsed) UCCP_CHECK(parsed.error().reason() == reason, "every refusal has one reason");
  return parsed.has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto index = containers::parse_index(text); taken(index, "IMAGE_INVALID"))
    for (const auto& one : *index) check(one);
  if (const auto manifest = containers::parse_manifest(text); taken(manifest, "IMAGE_INVALID")) {
    check(manifest->config);
    for (const auto& one : manifest->layers) check(one);
  }
  (void)taken(containers::parse_image_config(text), "IMAGE_INVALID");
  (void)taken(containers::parse_bundle_config(text), "IMAGE_INVALID");
  if (const auto reference = containers::parse_image_reference(std::string(text));
      taken(reference, "IMAGE_REFERENCE_INVALID"))
    UCCP_CHECK(!reference->path.empty() && reference->path.front() != '/', "a reference is relative");
  return 0;
}
