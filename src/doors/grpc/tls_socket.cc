#include "doors/grpc/tls_socket.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "doors/net/tls_context.h"

namespace uccp::doors {

void TlsSocket::Free::operator()(ssl_st* ssl) const { SSL_free(ssl); }

TlsSocket::TlsSocket(int fd, ssl_ctx_st* context) : fd_(fd), ssl_(SSL_new(context)) {
  UCCP_CHECK(ssl_ != nullptr, "there is memory for a TLS connection");
  SSL_set_fd(ssl_.get(), fd_);
  SSL_set_accept_state(ssl_.get());
  SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // One read() for whatever has come, not two for each record.
  SSL_set_read_ahead(ssl_.get(), 1);
}

TlsSocket::~TlsSocket() { close(); }

TlsSocket::Io TlsSocket::result_of(int code) {
  switch (SSL_get_error(ssl_.get(), code)) {
    case SSL_ERROR_WANT_READ: return Io::kWantsRead;
    case SSL_ERROR_WANT_WRITE: return Io::kWantsWrite;
    case SSL_ERROR_ZERO_RETURN: break;
    default: failed_ = true;
  }
  ERR_clear_error();
  return Io::kClosed;
}

TlsSocket::Io TlsSocket::handshake() {
  const int code = SSL_do_handshake(ssl_.get());
  return code == 1 ? Io::kDone : result_of(code);
}

TlsSocket::Io TlsSocket::read(char* to, size_t size, size_t& moved) {
  const int code = SSL_read_ex(ssl_.get(), to, size, &moved);
  return code == 1 ? Io::kDone : result_of(code);
}

TlsSocket::Io TlsSocket::write(const char* from, size_t size, size_t& moved) {
  const int code = SSL_write_ex(ssl_.get(), from, size, &moved);
  return code == 1 ? Io::kDone : result_of(code);
}

std::string TlsSocket::certificate_pem() const { return client_certificate_pem(ssl_.get()); }
Status TlsSocket::check_again(const PeerTrust& clients) const { return check_client_again(ssl_.get(), clients); }

void TlsSocket::close() {
  if (fd_ < 0) return;
  if (!failed_ && SSL_is_init_finished(ssl_.get())) {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }
  ::shutdown(fd_, SHUT_WR);
  ::close(fd_);
  fd_ = -1;
}

}  // namespace uccp::doors
