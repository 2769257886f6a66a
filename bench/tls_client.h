// TLS connections of the load generators: plain sockets with OpenSSL, which cost the generator as little as possible.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

using SslContext = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

// TLS 1.3 with the client's certificate; `protocol` is asked for by ALPN unless it is empty. Errors: unavailable
// CONNECT_FAILED.
Result<SslContext> make_client_context(const TlsIdentity& tls, const std::string& protocol);

// A connection after its handshake, not blocking.
class TlsClient {
 public:
  // Tries for `seconds` to reach `target`, host:port. Errors: unavailable CONNECT_FAILED.
  static Result<std::unique_ptr<TlsClient>> connect(SSL_CTX& context, const std::string& target, double seconds);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  enum class Outcome : uint8_t { kDone, kWouldBlock, kClosed };
  // Reads up to `size` bytes; `got` is 0 unless done.
  Outcome read(char* data, size_t size, size_t& got);
  // Writes all or nothing. After kWouldBlock the same bytes must be offered again.
  Outcome write(const char* data, size_t size);
  int fd() const { return fd_; }

 private:
  TlsClient(int fd, SSL* ssl) : fd_(fd), ssl_(ssl) {}
  Outcome failed(int result);

  const int fd_;
  SSL* const ssl_;
};

}  // namespace uccp::bench
