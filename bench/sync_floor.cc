#include "bench/sync_floor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "bench/event_requests.h"

namespace uccp::bench {
namespace {

constexpr int kConnections = 8;
constexpr off_t kFileBytes = 64 << 20;
// Bytes that follow, and the number of the message; an answer is a head that nothing follows.
struct Head {
  uint64_t bytes = 0;
  uint64_t id = 0;
};

// Writes behind what was written before; begins again at the end.
class SyncedFile {
 public:
  explicit SyncedFile(const std::string& path) : fd_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)) {
    // Blocks that were written once: a sync then changes no metadata.
    const std::string zeros(1 << 20, '\0');
    for (off_t at = 0; at < kFileBytes; at += static_cast<off_t>(zeros.size())) {
      if (::pwrite(fd_, zeros.data(), zeros.size(), at) < 0) break;
    }
    ::fsync(fd_);
  }
  ~SyncedFile() { ::close(fd_); }
  SyncedFile(const SyncedFile&) = delete;
  SyncedFile& operator=(const SyncedFile&) = delete;

  bool append(std::string_view bytes) {
    if (at_ + static_cast<off_t>(bytes.size()) > kFileBytes) at_ = 0;
    if (::pwrite(fd_, bytes.data(), bytes.size(), at_) != static_cast<ssize_t>(bytes.size())) return false;
    at_ += static_cast<off_t>(bytes.size());
    return ::fdatasync(fd_) == 0;
  }

 private:
  const int fd_;
  off_t at_ = 0;
};

class Protocol final : public MessageProtocol {
 public:
  void begin(std::string&) override {}
  void publish(std::string& out, uint64_t id, std::string_view payload) override {
    const Head head{payload.size(), id};
    out.append(reinterpret_cast<const char*>(&head), sizeof head).append(payload);
  }
  Result<size_t> take(std::string_view in, std::string&, const Answered& answered, const Delivered&) override {
    size_t at = 0;
    for (Head head; in.size() - at >= sizeof head; at += sizeof head) {
      std::memcpy(&head, in.data() + at, sizeof head);
      answered(head.id, true, {});
    }
    return at;
  }
};

// One client of the server.
struct Client {
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl{nullptr, SSL_free};
  std::string in;

  // False: it is gone.
  bool serve(SyncedFile& file) {
    std::array<char, 64 << 10> buffer;
    size_t got = 0;
    while (SSL_read_ex(ssl.get(), buffer.data(), buffer.size(), &got) == 1) in.append(buffer.data(), got);
    if (SSL_get_error(ssl.get(), 0) == SSL_ERROR_ZERO_RETURN) return false;
    std::string out;
    size_t at = 0;
    for (Head head; in.size() - at >= sizeof head; at += sizeof head + head.bytes) {
      std::memcpy(&head, in.data() + at, sizeof head);
      if (in.size() - at - sizeof head < head.bytes) break;
      if (!file.append(std::string_view(in).substr(at, sizeof head + head.bytes))) return false;
      const Head answer{0, head.id};
      out.append(reinterpret_cast<const char*>(&answer), sizeof answer);
    }
    in.erase(0, at);
    size_t put = 0;
    return out.empty() || SSL_write_ex(ssl.get(), out.data(), out.size(), &put) == 1;
  }
};

int listen_anywhere() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool listens = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::listen(fd, 64) == 0;
  return listens ? fd : -1;
}

std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> make_context(const std::string& keys) {
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  const bool good = SSL_CTX_use_certificate_chain_file(context.get(), (keys + "/node.crt").c_str()) == 1 &&
                    SSL_CTX_use_PrivateKey_file(context.get(), (keys + "/node.key").c_str(), SSL_FILETYPE_PEM) == 1 &&
                    SSL_CTX_load_verify_locations(context.get(), (keys + "/ca.crt").c_str(), nullptr) == 1;
  if (!good) context.reset();
  return context;
}

// The handshake blocks: nobody else is served meanwhile.
Client accept_client(SSL_CTX& context, int listener) {
  Client client;
  const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  client.ssl.reset(SSL_new(&context));
  SSL_set_fd(client.ssl.get(), fd);
  SSL_accept(client.ssl.get());
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  return client;
}

}  // namespace

int sync_server_main(const std::vector<std::string>& arguments) {
  if (arguments.size() != 3) return 2;
  ::signal(SIGPIPE, SIG_IGN);
  const auto context = make_context(arguments[0]);
  const int listener = listen_anywhere();
  if (context == nullptr || listener < 0) return 1;
  SyncedFile file(arguments[1]);
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string unfinished = arguments[2] + ".tmp";
  std::ofstream(unfinished) << ntohs(address.sin_port);
  std::filesystem::rename(unfinished, arguments[2]);
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.fd = listener}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  std::map<int, Client> clients;
  while (true) {
    std::array<epoll_event, 16> events;
    const int count = ::epoll_wait(epoll, events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == listener) {
        Client client = accept_client(*context, listener);
        const int accepted = SSL_get_fd(client.ssl.get());
        event = {.events = EPOLLIN, .data = {.fd = accepted}};
        ::epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
        clients.insert_or_assign(accepted, std::move(client));
      } else if (!clients.at(fd).serve(file)) {
        clients.erase(fd);
        ::close(fd);
      }
    }
  }
}

Result<std::unique_ptr<SyncFloor>> SyncFloor::start(const Context& context, const UccpCluster& pki) {
  const std::string directory = new_directory(context, "floor");
  const std::string port_file = directory + "/port";
  UCCP_TRY(Child server, Child::start({std::filesystem::read_symlink("/proc/self/exe"), "sync-server",
                                       fmt::format("{}/n1/pki", pki.directory()), directory + "/file", port_file},
                                      directory + "/log"));
  for (int i = 0; i < 6000 && !std::filesystem::exists(port_file) && !server.ended(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  UCCP_TRY(const std::string port, read_text(port_file));
  UCCP_TRY(auto load, MessageLoad::connect(
                          {"127.0.0.1:" + port}, pki.tls(), [] { return std::make_unique<Protocol>(); }, kConnections));
  return std::unique_ptr<SyncFloor>(new SyncFloor(std::move(server), std::move(load)));
}

LoadResult SyncFloor::run(size_t bytes, const Plan& plan) {
  return load_->run([bytes](uint64_t) { return stamped(bytes); }, plan);
}

double syncs_per_second(const Context& context, size_t bytes, double seconds) {
  SyncedFile file(new_directory(context, "syncs") + "/file");
  uint64_t count = 0;
  const SteadyTime begin = SteadyTime::clock::now();
  while (since(begin) < seconds && file.append(stamped(bytes))) ++count;
  return static_cast<double>(count) / since(begin);
}

}  // namespace uccp::bench
