#include "doors/grpc/tls_socket.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "doors/net/tls_context.h"

namespace uccp::doors {

namespace {

constexpr size_t kRecordBytes = 16u << 10;
constexpr size_t kSealBytes = 64;  // of a record, beside its content
constexpr size_t kKeptBytes = 16u << 10;

// What is written to it is appended to `out`, which must outlive it.
BIO* make_gathering(std::string& out) {
  static BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gathering");
    UCCP_CHECK(method != nullptr, "there is memory for TLS");
    BIO_meth_set_write_ex(method, [](BIO* bio, const char* bytes, size_t size, size_t* written) {
      static_cast<std::string*>(BIO_get_data(bio))->append(bytes, size);
      *written = size;
      return 1;
    });
    BIO_meth_set_ctrl(method, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH; });
    return method;
  }();
  BIO* bio = BIO_new(kMethod);
  UCCP_CHECK(bio != nullptr, "there is memory for a TLS connection");
  BIO_set_data(bio, &out);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace

void TlsSocket::Free::operator()(ssl_st* ssl) const { SSL_free(ssl); }

TlsSocket::TlsSocket(int fd, ssl_ctx_st* context) : fd_(fd), ssl_(SSL_new(context)) {
  UCCP_CHECK(ssl_ != nullptr, "there is memory for a TLS connection");
  UCCP_CHECK(SSL_set_rfd(ssl_.get(), fd_) == 1, "there is memory for a TLS connection");
  SSL_set0_wbio(ssl_.get(), make_gathering(out_));
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

// Sends what was encrypted.
TlsSocket::Io TlsSocket::push() {
  while (out_at_ < out_.size()) {
    const ssize_t sent = ::send(fd_, out_.data() + out_at_, out_.size() - out_at_, MSG_NOSIGNAL);
    if (sent > 0) {
      out_at_ += static_cast<size_t>(sent);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Io::kWantsWrite;
    } else if (errno != EINTR) {
      failed_ = true;
      return Io::kClosed;
    }
  }
  out_at_ = 0;
  out_.clear();
  // A connection at rest holds no memory for this.
  if (out_.capacity() > kKeptBytes) out_ = std::string();
  return Io::kDone;
}

TlsSocket::Io TlsSocket::handshake() {
  const int code = SSL_do_handshake(ssl_.get());
  const Io result = code == 1 ? Io::kDone : result_of(code);
  const Io pushed = push();
  // What is left of the last flight goes along with what is written next.
  return pushed == Io::kDone || result != Io::kWantsRead ? result : pushed;
}

TlsSocket::Io TlsSocket::read(char* to, size_t size, size_t& moved) {
  const int code = SSL_read_ex(ssl_.get(), to, size, &moved);
  const Io result = code == 1 ? Io::kDone : result_of(code);
  // An answer to what was not data, such as new keys.
  if (!out_.empty()) push();
  return result;
}

TlsSocket::Io TlsSocket::write(std::string_view bytes) {
  if (!bytes.empty()) out_.reserve(out_.size() + bytes.size() + bytes.size() / kRecordBytes * kSealBytes + kSealBytes);
  while (!bytes.empty()) {
    size_t moved = 0;
    const int code = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &moved);
    if (code != 1) {
      result_of(code);
      failed_ = true;
      return Io::kClosed;
    }
    bytes.remove_prefix(moved);
  }
  return push();
}

std::string TlsSocket::certificate_pem() const { return client_certificate_pem(ssl_.get()); }
Status TlsSocket::check_again(const PeerTrust& clients) const { return check_client_again(ssl_.get(), clients); }

void TlsSocket::close() {
  if (fd_ < 0) return;
  if (!failed_ && SSL_is_init_finished(ssl_.get())) {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
    push();
  }
  ::shutdown(fd_, SHUT_WR);
  ::close(fd_);
  fd_ = -1;
}

}  // namespace uccp::doors
