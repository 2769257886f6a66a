#include "containers/image_layout.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "base/bytes.h"
#include "base/hash.h"
#include "containers/archive_reader.h"
#include "runtime/owned_fd.h"

namespace uccp::containers {
namespace {

constexpr int kIndexDepthMax = 4;
constexpr size_t kHashBytes = 1u << 20;

std::unexpected<Status> invalid(const std::string& what) { return fail(Code::kInvalid, "IMAGE_INVALID", what); }

std::unexpected<Status> not_there(const std::string& what) { return fail(Code::kNotFound, "IMAGE_NOT_FOUND", what); }

class DirectoryLayout final : public ImageLayout {
 public:
  explicit DirectoryLayout(std::string path) : path_(std::move(path)) {}

  Result<std::string> layer(const Descriptor& what, const std::string& /*scratch*/) override {
    std::string file = path_ + "/" + what.path();
    UCCP_RETURN_IF_ERROR(check_file(what, file));
    return file;
  }

 protected:
  Result<std::string> read(const std::string& name, uint64_t bytes_max) override {
    std::ifstream in(path_ + "/" + name, std::ios::binary);
    if (!in) return not_there("the image " + path_ + " has no " + name);
    std::string text(bytes_max + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(in.gcount()));
    if (text.size() > bytes_max)
      return fail(Code::kExhausted, "IMAGE_TOO_LARGE", name + " of " + path_ + " is too large");
    return text;
  }

 private:
  const std::string path_;
};

class ArchiveLayout final : public ImageLayout {
 public:
  explicit ArchiveLayout(std::string path) : path_(std::move(path)) {}

  Result<std::string> layer(const Descriptor& what, const std::string& scratch) override {
    UCCP_TRY(ArchiveReader reader, find_entry(what.path()));
    const runtime::OwnedFd out(::open(scratch.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!out) return fail(io_error("make", scratch));
    UCCP_TRY(const uint64_t size, reader.write_to(out.get(), what.size));
    (void)size;
    UCCP_RETURN_IF_ERROR(check_file(what, scratch));
    return scratch;
  }

 protected:
  Result<std::string> read(const std::string& name, uint64_t bytes_max) override {
    UCCP_TRY(ArchiveReader reader, find_entry(name));
    return reader.read_all(bytes_max);
  }

 private:
  // Standing at the entry of this name. What lies before it is skipped without being read.
  Result<ArchiveReader> find_entry(const std::string& name) {
    UCCP_TRY(ArchiveReader reader, ArchiveReader::open(path_, ArchiveReader::Filters::kNone));
    while (true) {
      UCCP_TRY(archive_entry* const entry, reader.next());
      if (entry == nullptr) return not_there("the image " + path_ + " has no " + name);
      const char* const path = archive_entry_pathname(entry);
      if (path != nullptr && archive_entry_filetype(entry) == AE_IFREG && inner_path(path) == name) return reader;
    }
  }

  const std::string path_;
};

bool fits(const Descriptor& one, const std::string& architecture) {
  return (one.os.empty() || one.os == "linux") && (one.architecture.empty() || one.architecture == architecture);
}

}  // namespace

std::string machine_architecture() {
  utsname machine{};
  uname(&machine);
  const std::string_view name = machine.machine;
  return name == "x86_64" ? "amd64" : name == "aarch64" ? "arm64" : std::string(name);
}

Result<std::unique_ptr<ImageLayout>> ImageLayout::open(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return not_there("there is no image " + path);
  std::unique_ptr<ImageLayout> layout;
  if (S_ISDIR(info.st_mode)) layout = std::make_unique<DirectoryLayout>(path);
  else layout = std::make_unique<ArchiveLayout>(path);
  const auto mark = layout->read("oci-layout", kDocumentBytesMax);
  if (!mark) {
    const bool missing = mark.error().reason() == "IMAGE_NOT_FOUND";
    return missing ? invalid(path + " is not an OCI image layout: it has no file oci-layout") : fail(mark.error());
  }
  return layout;
}

Result<Descriptor> ImageLayout::find(const std::string& tag, const std::string& architecture) {
  UCCP_TRY(std::string index, read("index.json", kDocumentBytesMax));
  for (int depth = 0; depth < kIndexDepthMax; ++depth) {
    UCCP_TRY(const std::vector<Descriptor> all, parse_index(index));
    std::vector<Descriptor> found;
    for (const Descriptor& one : all) {
      if (fits(one, architecture) && (depth > 0 || tag.empty() || one.name == tag)) found.push_back(one);
    }
    if (found.size() != 1) {
      std::string names;
      for (const Descriptor& one : all) {
        const std::string platform = one.os.empty() ? "" : " (" + one.os + "/" + one.architecture + ")";
        names += (names.empty() ? "" : ", ") + (one.name.empty() ? one.digest : one.name) + platform;
      }
      const std::string wanted =
          (tag.empty() ? "image" : "image named " + tag) + std::string(" for linux/") + architecture;
      if (found.empty()) return not_there("there is no " + wanted + "; there is " + (names.empty() ? "none" : names));
      return invalid("there is more than one " + wanted + ", name one by its tag: " + names);
    }
    if (!found.front().is_index()) return found.front();
    UCCP_TRY(index, document(found.front()));
  }
  return invalid("the image's indexes lie in each other more than " + std::to_string(kIndexDepthMax) + " deep");
}

Result<std::string> ImageLayout::document(const Descriptor& what) {
  UCCP_TRY(std::string text, read(what.path(), kDocumentBytesMax));
  if (text.size() != what.size || "sha256:" + to_hex(sha256(text)) != what.digest)
    return invalid("the image's " + what.path() + " is damaged: its content is not what its name says");
  return text;
}

Status ImageLayout::check_file(const Descriptor& what, const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return Status(Code::kNotFound, "IMAGE_NOT_FOUND", "the image has no " + what.path());
  Sha256 hash;
  uint64_t size = 0;
  std::string piece(kHashBytes, '\0');
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    hash.update(std::string_view(piece).substr(0, static_cast<size_t>(in.gcount())));
    size += static_cast<uint64_t>(in.gcount());
  }
  if (size == what.size && "sha256:" + to_hex(hash.finish()) == what.digest) return {};
  return Status(Code::kInvalid, "IMAGE_INVALID",
                "the image's " + what.path() + " is damaged: its content is not what its name says");
}

}  // namespace uccp::containers
