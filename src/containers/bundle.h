// The config.json of a container: what runc is told. Source: OCI Runtime Specification 1.0. Pure.
//
// The container is one user: root within, the user of its namespace without. It has no privileges beyond its own
// namespaces, its own mounts, processes and host name, and its own network unless it is given that of the worker. What
// the kernel offers and no task needs is refused by seccomp.
#pragma once

#include <string>
#include <vector>

namespace uccp::containers {

struct BundleSpec {
  std::vector<std::string> arguments;
  std::vector<std::string> env;  // NAME=VALUE
  std::string working_directory;
  std::string root;            // where the root file system is mounted
  std::string folder;          // of the task, seen under the same path
  std::string private_folder;  // below `folder`; not to be seen
  std::string host_name;
  std::vector<std::string> shown_files;  // of the worker, under the same path, not to be written to
  bool read_only = false;
  bool host_network = false;
};

std::string bundle_config(const BundleSpec& spec);

// The environment of a container: the image's, and over it the task's. What names the worker's programs, PATH, comes
// from the image unless `keep_path`.
std::vector<std::string> container_environment(const std::vector<std::string>& image,
                                               const std::vector<std::string>& task, bool keep_path);

}  // namespace uccp::containers
