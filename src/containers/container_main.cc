// uccp-container: unpacks an image and becomes the container that runs a command in it.
//
// It is the command of an attempt: it runs as the user of the task, in its control group, and whatever an image holds
// is read with no more rights than the task has. What it says on standard error with its name in front is why the
// container was not started; it then exits with 125, as container engines do.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "containers/bundle.h"
#include "containers/image_cache.h"
#include "containers/image_layout.h"
#include "containers/image_reference.h"
#include "containers/sandbox.h"

extern char** environ;

namespace uccp::containers {
namespace {

namespace fs = std::filesystem;

constexpr int kNotStarted = 125;

struct Flags {
  std::string image;
  std::string folder;
  std::string working_directory;
  std::string cache;
  std::string images;
  std::string runc = "runc";
  std::string host_name = "uccp";
  size_t cached_images_max = 8;
  uint64_t image_bytes_max = 16ull << 30;
  bool read_only = false;
  bool host_network = false;
  bool keep_path = false;
  bool probe = false;
  std::vector<std::string> command;
};

void add_flags(CLI::App& app, Flags& flags) {
  app.add_option("--image", flags.image, "oci-archive:PATH[:TAG], oci:PATH[:TAG], or NAME[:TAG] of --images");
  app.add_option("--folder", flags.folder, "Folder of the task, where its inputs are")->envname("UCCP_TASK_DIR");
  app.add_option("--working-directory", flags.working_directory,
                 "Where the command starts; default the current directory");
  app.add_option("--cache", flags.cache, "Directory for unpacked images, of the caller's user");
  app.add_option("--images", flags.images, "Directory of images that the operator provides");
  app.add_option("--runc", flags.runc, "Program that runs containers")->capture_default_str();
  app.add_option("--host-name", flags.host_name, "Host name in the container")->capture_default_str();
  app.add_option("--cached-images", flags.cached_images_max, "Images that are kept unpacked")->capture_default_str();
  app.add_option("--image-bytes-max", flags.image_bytes_max, "Most bytes of an unpacked image")->capture_default_str();
  app.add_flag("--read-only", flags.read_only, "The root file system cannot be written to");
  app.add_flag("--host-network", flags.host_network, "The network of the worker in place of none");
  app.add_flag("--keep-path", flags.keep_path, "PATH is the caller's in place of the image's");
  app.add_flag("--probe", flags.probe, "Only finds out whether containers can be run");
  app.add_option("command", flags.command, "Program and arguments; default what the image says");
}

struct Image {
  std::string root;
  RunConfig config;
  runtime::OwnedFd lock;
};

Result<std::string> read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(Code::kNotFound, "IMAGE_NOT_FOUND", "cannot read " + path);
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

Result<Image> bundle_image(const std::string& path) {
  UCCP_TRY(const std::string text, read_text(path + "/config.json"));
  Image image;
  UCCP_TRY(image.config, parse_bundle_config(text));
  std::error_code error;
  const fs::path bundle = fs::canonical(path, error);
  const fs::path root = fs::canonical(bundle / image.config.root, error);
  if (error || fs::relative(root, bundle, error).string().starts_with(".."))
    return fail(Code::kInvalid, "IMAGE_INVALID", "the root of the bundle " + path + " is not inside of it");
  image.root = root.string();
  return image;
}

// Where the image of a reference is.
Result<std::string> find_path(const ImageReference& reference, const Flags& flags) {
  if (!reference.from_worker) return flags.folder + "/" + reference.path;
  std::error_code error;
  if (flags.images.empty()) {
    return fail(Code::kNotFound, "IMAGE_NOT_FOUND",
                "this worker has no images of its own (uccp-agent --images DIR); give " + reference.path +
                    " as an input: oci-archive:PATH");
  }
  const std::string path = flags.images + "/" + reference.path;
  for (const std::string& candidate : {path + ".tar", path}) {
    if (fs::exists(candidate, error)) return candidate;
  }
  return fail(Code::kNotFound, "IMAGE_NOT_FOUND", "this worker has no image " + reference.path);
}

Result<Image> find_image(const Flags& flags) {
  UCCP_TRY(const ImageReference reference, parse_image_reference(flags.image));
  UCCP_TRY(const std::string path, find_path(reference, flags));
  std::error_code error;
  // A bundle's file system is used as it is, so that it has to be the operator's.
  if (reference.from_worker && fs::exists(path + "/config.json", error)) return bundle_image(path);
  UCCP_TRY(const auto layout, ImageLayout::open(path));
  UCCP_TRY(const Descriptor manifest, layout->find(reference.tag, machine_architecture()));
  UnpackLimits limits;
  limits.bytes = flags.image_bytes_max;
  UCCP_TRY(CachedImage cached,
           cached_image(*layout, manifest,
                        {.directory = flags.cache, .images_max = flags.cached_images_max, .limits = limits},
                        [](const std::string& what) { std::fprintf(stderr, "uccp-container: %s\n", what.c_str()); }));
  return Image{.root = std::move(cached.root), .config = std::move(cached.config), .lock = std::move(cached.lock)};
}

std::vector<std::string> own_environment() {
  std::vector<std::string> env;
  for (char** at = environ; *at != nullptr; ++at) env.emplace_back(*at);
  return env;
}

Result<BundleSpec> bundle_of(const Flags& flags, const Image& image, const std::string& private_folder) {
  BundleSpec spec;
  spec.arguments = flags.command;
  if (spec.arguments.empty()) {
    spec.arguments = image.config.entrypoint;
    spec.arguments.insert(spec.arguments.end(), image.config.command.begin(), image.config.command.end());
  }
  if (spec.arguments.empty())
    return fail(Code::kInvalid, "COMMAND_MISSING",
                "the image " + flags.image + " does not say what to run, nor does the task");
  spec.env = container_environment(image.config.env, own_environment(), flags.keep_path);
  spec.folder = flags.folder;
  std::error_code error;
  spec.working_directory = flags.working_directory.empty() ? fs::current_path(error).string() : flags.working_directory;
  spec.private_folder = private_folder;
  spec.root = private_folder + "/root";
  spec.host_name = flags.host_name;
  spec.read_only = flags.read_only;
  spec.host_network = flags.host_network;
  for (const char* file : {"/etc/resolv.conf", "/etc/hosts"}) {
    if (flags.host_network && fs::exists(file, error)) spec.shown_files.emplace_back(file);
  }
  return spec;
}

// Does not return if all goes well.
Status run(const Flags& flags) {
  UCCP_TRY(const Image image, find_image(flags));
  const std::string private_folder = flags.folder + "/.tmp/.container";
  UCCP_TRY(const BundleSpec spec, bundle_of(flags, image, private_folder));
  std::error_code error;
  for (const char* name : {"", "/upper", "/work", "/root", "/state"})
    fs::create_directories(private_folder + name, error);
  UCCP_RETURN_IF_ERROR(enter_namespaces());
  UCCP_RETURN_IF_ERROR(mount_overlay(image.root, private_folder + "/upper", private_folder + "/work", spec.root));
  std::ofstream config(private_folder + "/config.json", std::ios::binary);
  config << bundle_config(spec);
  config.close();
  if (!config) return Status(Code::kExhausted, "NO_SPACE", "cannot write the container's config.json");
  const std::string state = private_folder + "/state";
  // Control groups are the agent's; the container stays in that of its attempt.
  const char* const arguments[] = {flags.runc.c_str(),     "--root",    state.c_str(),
                                   "--rootless=true",      "run",       "--bundle",
                                   private_folder.c_str(), "container", nullptr};
  execvp(flags.runc.c_str(), const_cast<char* const*>(arguments));
  return Status(Code::kNotFound, "RUNC_NOT_FOUND", "cannot execute " + flags.runc + ": " + std::strerror(errno));
}

int main_of(int argc, char** argv) {
  CLI::App app{"Runs a command in a container made of an image, as the calling user"};
  Flags flags;
  add_flags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kNotStarted;
  }
  umask(022);
  const Status status = flags.probe ? probe(flags.runc) : run(flags);
  if (status.is_ok()) return 0;
  std::fprintf(stderr, "uccp-container: %s\n", std::string(status.message()).c_str());
  return kNotStarted;
}

}  // namespace
}  // namespace uccp::containers

int main(int argc, char** argv) { return uccp::containers::main_of(argc, argv); }
