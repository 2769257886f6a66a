// A connection over TCP, with or without TLS, whose calls block: for clients of a few requests at a time, on threads
// that may wait.
//
// Every call ends within the time limit; after an error the connection is of no more use. TLS as in runtime/tls.h; the
// process ignores SIGPIPE.
// Thread: one at a time; end() from any, also while another is in a call, which fails then.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "runtime/owned_fd.h"
#include "runtime/tls.h"

namespace uccp::runtime {

// "host:port" or "[::1]:port". Errors: invalid ADDRESS_INVALID.
struct HostPort {
  std::string host;
  std::string port;
};
Result<HostPort> parse_host_port(std::string_view text);

// Sockets that listen on the address; port 0 takes a free one. Errors: unavailable LISTEN_FAILED, invalid
// ADDRESS_INVALID.
struct TcpListener {
  OwnedFd socket;
  HostPort address;  // with the port that it has
};
Result<TcpListener> listen_tcp(std::string_view address);

struct StreamOptions {
  int64_t timeout_ms = 10'000;  // of each call
  TlsContext tls = nullptr;     // null: without
  std::string server_name;      // that the server's certificate has to name; of TLS
};

class BlockingStream {
 public:
  // Errors: unavailable CONNECTION_FAILED, with the address; invalid ADDRESS_INVALID.
  static Result<BlockingStream> connect(std::string_view address, const StreamOptions& options);
  // The server's end of a connection that was accepted. Errors: unavailable CONNECTION_FAILED.
  static Result<BlockingStream> serve(OwnedFd socket, const StreamOptions& options);
  BlockingStream(BlockingStream&& other) noexcept;
  BlockingStream& operator=(BlockingStream&& other) noexcept;
  ~BlockingStream();

  // All of it. Errors: unavailable CONNECTION_FAILED.
  Status write(std::string_view data);
  // Exactly so many bytes. Errors: unavailable CONNECTION_FAILED, CONNECTION_ENDED.
  Status read(char* out, size_t size);
  // What has come, at least one byte and at most `size`. Errors: as for read().
  Result<size_t> read_some(char* out, size_t size);
  void end() const;

 private:
  BlockingStream(OwnedFd socket, std::string peer, int64_t timeout_ms);
  Status secure(const StreamOptions& options, bool as_server);
  Status failed(std::string_view what, int result) const;

  OwnedFd socket_;
  std::string peer_;
  int64_t timeout_ms_ = 0;
  ssl_st* tls_ = nullptr;
};

}  // namespace uccp::runtime
