#include "runtime/blocking_stream.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

namespace uccp::runtime {
namespace {

constexpr int kBacklog = 64;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> resolve(const HostPort& where, bool to_listen) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = to_listen ? AI_PASSIVE : AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(where.host.c_str(), where.port.c_str(), &hints, &found); error != 0) {
    return fail(Code::kUnavailable, "CONNECTION_FAILED",
                "the address " + where.host + ":" + where.port + " is not found: " + gai_strerror(error));
  }
  return Addresses(found);
}

void set_times(int socket, int64_t timeout_ms) {
  const timeval time{.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Result<HostPort> parse_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  const auto invalid = [&] {
    return fail(Code::kInvalid, "ADDRESS_INVALID",
                "\"" + std::string(text) + "\" is no address: it is HOST:PORT, of IPv6 [ADDRESS]:PORT");
  };
  if (colon == std::string_view::npos || colon == 0) return invalid();
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5 || !std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; }) ||
      std::stoi(std::string(port)) > 65'535) {
    return invalid();
  }
  if (host.front() == '[' && host.back() == ']' && host.size() > 2) host = host.substr(1, host.size() - 2);
  else if (host.find_first_of("[]:/ ") != std::string_view::npos) return invalid();
  return HostPort{.host = std::string(host), .port = std::string(port)};
}

Result<TcpListener> listen_tcp(std::string_view address) {
  UCCP_TRY(HostPort where, parse_host_port(address));
  UCCP_TRY(const Addresses addresses, resolve(where, true));
  std::string why = "there is no such address";
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    OwnedFd socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    if (socket && bind(socket.get(), one->ai_addr, one->ai_addrlen) == 0 && listen(socket.get(), kBacklog) == 0 &&
        getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &size) == 0) {
      const uint16_t port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                        : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
      where.port = std::to_string(ntohs(port));
      return TcpListener{.socket = std::move(socket), .address = std::move(where)};
    }
    why = std::strerror(errno);
  }
  return fail(Code::kUnavailable, "LISTEN_FAILED", "cannot listen on " + std::string(address) + ": " + why);
}

BlockingStream::BlockingStream(OwnedFd socket, std::string peer, int64_t timeout_ms)
    : socket_(std::move(socket)), peer_(std::move(peer)), timeout_ms_(timeout_ms) {}

BlockingStream::BlockingStream(BlockingStream&& other) noexcept
    : socket_(std::move(other.socket_)),
      peer_(std::move(other.peer_)),
      timeout_ms_(other.timeout_ms_),
      tls_(std::exchange(other.tls_, nullptr)) {}

BlockingStream& BlockingStream::operator=(BlockingStream&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(peer_, other.peer_);
  std::swap(timeout_ms_, other.timeout_ms_);
  std::swap(tls_, other.tls_);
  return *this;
}

BlockingStream::~BlockingStream() { SSL_free(tls_); }

Result<BlockingStream> BlockingStream::connect(std::string_view address, const StreamOptions& options) {
  UCCP_TRY(const HostPort where, parse_host_port(address));
  UCCP_TRY(const Addresses addresses, resolve(where, false));
  std::string why = "there is no such address";
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    OwnedFd socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) continue;
    set_times(socket.get(), options.timeout_ms);
    if (::connect(socket.get(), one->ai_addr, one->ai_addrlen) == 0) {
      BlockingStream stream(std::move(socket), std::string(address), options.timeout_ms);
      UCCP_RETURN_IF_ERROR(stream.secure(options, false));
      return stream;
    }
    why = errno == EINPROGRESS ? "it does not answer" : std::strerror(errno);
  }
  return fail(Code::kUnavailable, "CONNECTION_FAILED", "cannot connect to " + std::string(address) + ": " + why);
}

Result<BlockingStream> BlockingStream::serve(OwnedFd socket, const StreamOptions& options) {
  set_times(socket.get(), options.timeout_ms);
  BlockingStream stream(std::move(socket), "a client", options.timeout_ms);
  UCCP_RETURN_IF_ERROR(stream.secure(options, true));
  return stream;
}

Status BlockingStream::secure(const StreamOptions& options, bool as_server) {
  if (options.tls == nullptr) return {};
  ERR_clear_error();
  tls_ = SSL_new(options.tls.get());
  if (tls_ == nullptr || SSL_set_fd(tls_, socket_.get()) != 1) return failed("begin TLS with", 0);
  if (!as_server) UCCP_RETURN_IF_ERROR(expect_server(tls_, options.server_name));
  const int result = as_server ? SSL_accept(tls_) : SSL_connect(tls_);
  return result == 1 ? Status() : failed("begin TLS with", result);
}

Status BlockingStream::failed(std::string_view what, int result) const {
  const int number = errno;
  std::string why;
  if (tls_ != nullptr) {
    const int error = SSL_get_error(tls_, result);
    if (error == SSL_ERROR_ZERO_RETURN) return Status(Code::kUnavailable, "CONNECTION_ENDED", peer_ + " has ended");
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) why = "no answer";
    else why = take_openssl_errors();
  } else if (result == 0) {
    return Status(Code::kUnavailable, "CONNECTION_ENDED", "the connection to " + peer_ + " has ended");
  }
  if (why.empty()) why = number == EAGAIN || number == EWOULDBLOCK ? "no answer" : std::strerror(number);
  if (why == "no answer") why += " within " + std::to_string(timeout_ms_) + " ms";
  return Status(Code::kUnavailable, "CONNECTION_FAILED", "cannot " + std::string(what) + " " + peer_ + ": " + why);
}

Status BlockingStream::write(std::string_view data) {
  while (!data.empty()) {
    const size_t size = std::min<size_t>(data.size(), INT_MAX);
    errno = 0;
    if (tls_ != nullptr) ERR_clear_error();
    const ssize_t sent = tls_ != nullptr ? SSL_write(tls_, data.data(), static_cast<int>(size))
                                         : send(socket_.get(), data.data(), size, MSG_NOSIGNAL);
    if (sent < 0 && tls_ == nullptr && errno == EINTR) continue;
    if (sent <= 0) return failed("write to", static_cast<int>(sent));
    data.remove_prefix(static_cast<size_t>(sent));
  }
  return {};
}

Result<size_t> BlockingStream::read_some(char* out, size_t size) {
  size = std::min<size_t>(size, INT_MAX);
  while (true) {
    errno = 0;
    if (tls_ != nullptr) ERR_clear_error();
    const ssize_t got =
        tls_ != nullptr ? SSL_read(tls_, out, static_cast<int>(size)) : recv(socket_.get(), out, size, 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got < 0 && tls_ == nullptr && errno == EINTR) continue;
    return std::unexpected(failed("read from", static_cast<int>(got)));
  }
}

Status BlockingStream::read(char* out, size_t size) {
  for (size_t at = 0; at < size;) {
    UCCP_TRY(const size_t got, read_some(out + at, size - at));
    at += got;
  }
  return {};
}

void BlockingStream::end() const { shutdown(socket_.get(), SHUT_RDWR); }

}  // namespace uccp::runtime
