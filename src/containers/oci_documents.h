// The JSON documents of OCI images and bundles, as far as they are needed to run one.
// Sources: OCI Image Format 1.1, OCI Runtime Specification 1.0. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::containers {

inline constexpr size_t kDocumentBytesMax = 4u << 20;
inline constexpr size_t kLayersMax = 128;

// What a document points to.
struct Descriptor {
  std::string media_type;
  std::string digest;  // "sha256:" and 64 hex digits
  uint64_t size = 0;
  std::string name;  // of an entry of an index: its tag
  std::string os;
  std::string architecture;

  // Path of its content in an image layout.
  std::string path() const { return "blobs/sha256/" + digest.substr(std::string_view("sha256:").size()); }
  bool is_index() const;
};

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  // from the lowest
};

// How an image or a bundle wants to be run.
struct RunConfig {
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::vector<std::string> env;  // NAME=VALUE
  std::string root;              // of a bundle: the path of its root file system
};

// Errors of all: invalid IMAGE_INVALID, which says what is wrong with which document.
Result<std::vector<Descriptor>> parse_index(std::string_view json);
Result<Manifest> parse_manifest(std::string_view json);
Result<RunConfig> parse_image_config(std::string_view json);
Result<RunConfig> parse_bundle_config(std::string_view json);

}  // namespace uccp::containers
