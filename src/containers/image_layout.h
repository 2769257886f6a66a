// An OCI image layout: a directory, or a tar archive of one. Whatever is read is checked against its digest.
// Source: OCI Image Layout Specification 1.1.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "containers/oci_documents.h"

namespace uccp::containers {

class ImageLayout {
 public:
  // `path` is a directory or an archive. Errors: not_found IMAGE_NOT_FOUND; invalid IMAGE_INVALID if it is no layout.
  static Result<std::unique_ptr<ImageLayout>> open(const std::string& path);
  virtual ~ImageLayout() = default;

  // The manifest for this machine; `tag` may be empty if there is no choice. Errors: not_found IMAGE_NOT_FOUND, which
  // says what there is; invalid IMAGE_INVALID.
  Result<Descriptor> find(const std::string& tag, const std::string& architecture);
  // A document that a descriptor names. Errors: invalid IMAGE_INVALID, also if its content is another one.
  Result<std::string> document(const Descriptor& what);
  // A file with the content of a layer: one that is there, or `scratch`, which it is written to. Errors as of
  // document().
  virtual Result<std::string> layer(const Descriptor& what, const std::string& scratch) = 0;

 protected:
  // A small file of the layout. Errors: not_found IMAGE_NOT_FOUND, exhausted IMAGE_TOO_LARGE.
  virtual Result<std::string> read(const std::string& name, uint64_t bytes_max) = 0;
  // Whether the file is what the descriptor says.
  static Status check_file(const Descriptor& what, const std::string& file);
};

// "amd64" and so on, as images call the machine's architecture.
std::string machine_architecture();

}  // namespace uccp::containers
