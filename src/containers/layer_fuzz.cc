// A layer of any entries, put onto a tree that has links out of it: nothing outside of the tree changes.
//
// Each line of the input is an entry: its kind (f file, d directory, l symbolic link, h hard link, p pipe), its path,
// and behind a blank what it links to or holds.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "containers/layer.h"
#include "runtime/owned_fd.h"

namespace {

using namespace uccp;
namespace fs = std::filesystem;

constexpr size_t kEntriesMax = 64;

void add_entry(archive* tar, std::string_view line) {
  if (line.size() < 2 || line.find('\0') != std::string_view::npos) return;
  const char kind = line.front();
  line.remove_prefix(1);
  const size_t blank = line.find(' ');
  const std::string path(line.substr(0, blank));
  const std::string rest(blank == std::string_view::npos ? "" : line.substr(blank + 1));
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
  archive_entry_set_pathname(entry.get(), path.c_str());
  archive_entry_set_perm(entry.get(), 0644);
  archive_entry_set_filetype(entry.get(), kind == 'd'   ? AE_IFDIR
                                          : kind == 'l' ? AE_IFLNK
                                          : kind == 'p' ? AE_IFIFO
                                                        : AE_IFREG);
  if (kind == 'l') archive_entry_set_symlink(entry.get(), rest.c_str());
  if (kind == 'h') archive_entry_set_hardlink(entry.get(), rest.c_str());
  const bool is_file = kind != 'd' && kind != 'l' && kind != 'p' && kind != 'h';
  archive_entry_set_size(entry.get(), is_file ? static_cast<int64_t>(rest.size()) : 0);
  if (archive_write_header(tar, entry.get()) != ARCHIVE_OK) return;
  if (is_file) (void)archive_write_data(tar, rest.data(), rest.size());
}

void write_layer(const std::string& file, std::string_view text) {
  archive* const tar = archive_write_new();
  archive_write_set_format_pax_restricted(tar);
  archive_write_open_filename(tar, file.c_str());
  for (size_t i = 0; i < kEntriesMax && !text.empty(); ++i) {
    const size_t end = text.find('\n');
    add_entry(tar, text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  archive_write_free(tar);
}

struct Folder {
  std::string path;
  Folder() {
    // In memory where there is such a place: each run makes files.
    std::error_code error;
    const fs::path parent = fs::is_directory("/dev/shm", error) ? fs::path("/dev/shm") : fs::temp_directory_path();
    std::string name = (parent / "uccp-layer-XXXXXX").string();
    UCCP_CHECK(mkdtemp(name.data()) != nullptr, "a folder can be made");
    path = name;
  }
  ~Folder() {
    std::error_code error;
    fs::remove_all(path, error);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Folder folder;
  const std::string root = folder.path + "/root";
  fs::create_directories(root + "/etc");
  std::ofstream(folder.path + "/witness") << "unchanged";
  fs::create_symlink(folder.path, root + "/out");
  fs::create_symlink("../witness", root + "/peek");
  write_layer(folder.path + "/layer", {reinterpret_cast<const char*>(data), size});
  const runtime::OwnedFd fd(open(root.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
  containers::UnpackLimits limits{.bytes = 1u << 20, .entries = 1'000};
  (void)containers::unpack_layer(folder.path + "/layer", fd.get(), limits);
  std::ifstream in(folder.path + "/witness");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  UCCP_CHECK(text == "unchanged", "what is outside is not written to");
  UCCP_CHECK(fs::hard_link_count(folder.path + "/witness") == 1, "what is outside is not linked to");
  UCCP_CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 3,
             "nothing is made or removed outside");
  return 0;
}
