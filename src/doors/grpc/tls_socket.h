// A connected socket with TLS on it, never blocking. On one thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/peer_trust.h"

struct ssl_ctx_st;
struct ssl_st;

namespace uccp::doors {

class TlsSocket {
 public:
  enum class Io : uint8_t { kDone, kWantsRead, kWantsWrite, kClosed };

  // Takes `fd`, which must not block.
  TlsSocket(int fd, ssl_ctx_st* context);
  ~TlsSocket();
  TlsSocket(const TlsSocket&) = delete;
  TlsSocket& operator=(const TlsSocket&) = delete;

  int fd() const { return fd_; }
  Io handshake();
  // kDone: `moved` bytes, at least one.
  Io read(char* to, size_t size, size_t& moved);
  // Takes all of it. kWantsWrite: some is still to be sent, by another call when the socket can be written to.
  Io write(std::string_view bytes);
  // The verified certificate that the client showed, PEM; empty if none.
  std::string certificate_pem() const;
  // Whether that certificate would be taken now; OK if there is none.
  Status check_again(const PeerTrust& clients) const;
  // Tells the client that no more comes, if that needs no waiting, and closes.
  void close();

 private:
  Io result_of(int code);
  Io push();

  struct Free {
    void operator()(ssl_st* ssl) const;
  };
  int fd_;
  // Encrypted and not sent yet: so many records cost one system call.
  std::string out_;
  size_t out_at_ = 0;
  std::unique_ptr<ssl_st, Free> ssl_;
  bool failed_ = false;
};

}  // namespace uccp::doors
