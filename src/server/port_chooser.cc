#include "server/port_chooser.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

namespace uccp::server {
namespace {

namespace fs = std::filesystem;

bool is_free(const std::string& host, uint16_t port, int type) {
  const int fd = ::socket(AF_INET, type | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int one = 1;
  if (type == SOCK_STREAM) (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) address.sin_addr.s_addr = htonl(INADDR_ANY);
  const bool free = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return free;
}

std::string notes_of_the_user() {
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  return error ? "" : (folder / ("uccp-ports-" + std::to_string(::geteuid()))).string();
}

}  // namespace

PortChooser::PortChooser(PortChooserOptions options) : options_(std::move(options)) {
  open_notes();
  if (notes_ >= 0) read_notes();
}

PortChooser::~PortChooser() {
  if (notes_ >= 0) ::close(notes_);
}

void PortChooser::open_notes() {
  const std::string path = options_.notes.empty() ? notes_of_the_user() : options_.notes;
  if (path.empty()) return;
  (void)::mkdir(path.c_str(), 0700);
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  // Where everybody may write, somebody else could have made it first.
  struct stat info{};
  const bool own = ::fstat(fd, &info) == 0 && info.st_uid == ::geteuid() && (info.st_mode & 0022) == 0;
  if (own && ::flock(fd, LOCK_EX) == 0) {
    notes_ = fd;
  } else {
    ::close(fd);
  }
}

// Takes what counts, and removes what does not any more.
void PortChooser::read_notes() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd/" + std::to_string(notes_), error)) {
    const std::string name = entry.path().filename().string();
    uint16_t port = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), port);
    if (bad != std::errc() || end != name.data() + name.size()) continue;
    const fs::path owner = fs::read_symlink(entry.path(), error);
    if (!error && fs::is_directory(owner, error) && !(options_.anew && owner == options_.owner)) {
      taken_.insert(port);
    } else {
      (void)::unlinkat(notes_, name.c_str(), 0);
    }
  }
}

Result<uint16_t> PortChooser::next() {
  const unsigned count = options_.end - options_.first;
  const auto begin = static_cast<unsigned>(random_.next() % count);
  for (unsigned step = 0; step < count; ++step) {
    const auto port = static_cast<uint16_t>(options_.first + (begin + step) % count);
    if (!taken_.insert(port).second) continue;
    // DNS wants a port for datagrams and for streams.
    if (!is_free(options_.host, port, SOCK_STREAM) || !is_free(options_.host, port, SOCK_DGRAM)) continue;
    if (notes_ >= 0) (void)::symlinkat(options_.owner.c_str(), notes_, std::to_string(port).c_str());
    return port;
  }
  return fail(Code::kExhausted, "PORTS_EXHAUSTED",
              "none of the ports " + std::to_string(options_.first) + " to " + std::to_string(options_.end - 1) +
                  " is free on " + options_.host +
                  " and without an owner; name ports in uccp.yaml, or remove clusters "
                  "that nobody needs");
}

}  // namespace uccp::server
