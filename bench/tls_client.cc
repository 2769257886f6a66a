#include "bench/tls_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace uccp::bench {
namespace {

constexpr size_t kReadBytes = 128u << 10;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free_all)>;

Bio bio_of(const std::string& pem) { return {BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free_all}; }

std::unexpected<Status> cannot(const std::string& what) {
  return fail(Code::kUnavailable, "CONNECT_FAILED", "the load generator cannot " + what);
}

int open_socket(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos) return -1;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(target.substr(0, colon).c_str(), target.substr(colon + 1).c_str(), &hints, &found) != 0) return -1;
  int fd = -1;
  for (const addrinfo* at = found; at != nullptr && fd < 0; at = at->ai_next) {
    fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && ::connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
      ::close(fd);
      fd = -1;
    }
  }
  ::freeaddrinfo(found);
  return fd;
}

}  // namespace

Result<SslContext> make_client_context(const TlsIdentity& tls, const std::string& protocol) {
  SslContext context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  // One read() for whatever has come, not two for each record.
  SSL_CTX_set_read_ahead(context.get(), 1);
  SSL_CTX_set_default_read_buffer_len(context.get(), kReadBytes);
  const std::unique_ptr<X509, decltype(&X509_free)> ca(
      PEM_read_bio_X509(bio_of(tls.ca_pem).get(), nullptr, nullptr, nullptr), X509_free);
  if (ca == nullptr || X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), ca.get()) != 1) {
    return cannot("read the CA certificate");
  }
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      PEM_read_bio_X509(bio_of(tls.certificate_pem).get(), nullptr, nullptr, nullptr), X509_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(bio_of(tls.key_pem).get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
  if (certificate == nullptr || key == nullptr || SSL_CTX_use_certificate(context.get(), certificate.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) {
    return cannot("read the client certificate");
  }
  if (!protocol.empty()) {
    const std::string wire = std::string(1, static_cast<char>(protocol.size())) + protocol;
    SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                            static_cast<unsigned>(wire.size()));
  }
  return context;
}

Result<std::unique_ptr<TlsClient>> TlsClient::connect(SSL_CTX& context, const std::string& target, double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int fd = open_socket(target);
  while (fd < 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    fd = open_socket(target);
  }
  if (fd < 0) return cannot("connect to " + target);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  SSL* ssl = SSL_new(&context);
  SSL_set_mode(ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_set_fd(ssl, fd);
  std::unique_ptr<TlsClient> client(new TlsClient(fd, ssl));
  ERR_clear_error();
  if (SSL_connect(ssl) != 1) return cannot("shake hands with " + target);
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  return client;
}

TlsClient::~TlsClient() {
  SSL_free(ssl_);
  ::close(fd_);
}

TlsClient::Outcome TlsClient::failed(int result) {
  const int error = SSL_get_error(ssl_, result);
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? Outcome::kWouldBlock : Outcome::kClosed;
}

TlsClient::Outcome TlsClient::read(char* data, size_t size, size_t& got) {
  got = 0;
  ERR_clear_error();
  const int result = SSL_read_ex(ssl_, data, size, &got);
  return result == 1 ? Outcome::kDone : failed(result);
}

TlsClient::Outcome TlsClient::write(const char* data, size_t size) {
  size_t written = 0;
  ERR_clear_error();
  const int result = SSL_write_ex(ssl_, data, size, &written);
  return result == 1 ? Outcome::kDone : failed(result);
}

}  // namespace uccp::bench
