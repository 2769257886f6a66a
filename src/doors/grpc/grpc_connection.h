// GrpcConnection: a client's socket, the HTTP/2 session on it, and the calls that are its streams. On one loop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "doors/grpc/grpc_call.h"
#include "doors/grpc/grpc_wire.h"
#include "doors/grpc/io_loop.h"
#include "doors/grpc/tls_socket.h"

struct nghttp2_session;

namespace uccp::doors {

struct GrpcConnectionOptions {
  uint32_t streams_max = 10'000;
  uint32_t stream_window_bytes = 1u << 20;
  int32_t connection_window_bytes = 8 << 20;
  // Of messages that are not complete yet, over all streams.
  size_t request_bytes_max = 64u << 20;
  int64_t handshake_timeout_ms = 10'000;
  int64_t idle_ms = 15 * 60'000;
  int64_t ping_after_ms = 20'000;    // without a byte from the client
  int64_t ping_timeout_ms = 20'000;  // after the ping
};

class GrpcConnection final : public IoSource, public std::enable_shared_from_this<GrpcConnection> {
 public:
  GrpcConnection(GrpcSharedPtr shared, IoLoopPtr loop, const GrpcConnectionOptions& options,
                 std::unique_ptr<TlsSocket> socket, std::string address);
  ~GrpcConnection() override;

  void begin();
  // No further call is taken; closes when those at work are answered.
  void drain();
  // Ends the calls at work; they are answered before the connection closes.
  void end_calls(const Status& status);
  void close();
  // Ends the connection if its client's certificate is not taken any more: at once for new calls, and for those at work
  // after the time that an answer on its way needs.
  void check_client(std::shared_ptr<const PeerTrust> clients);
  size_t calls() const { return calls_.size(); }

  void on_ready(uint32_t epoll_events) override;
  void on_tick(BootTime now) override;
  void flush() override;

  // For its calls. ---------------------------------------------------------------------------------------------------
  void identify(call::Call& call) const;
  // Whose calls came on it so far: of one tenant, else null.
  const call::TenantLoad* tenant_load() const { return callers_differ_ ? nullptr : tenant_load_.get(); }
  void note_caller(const call::Call& call);
  void answer(GrpcCall& call, const GrpcHeaders& headers);
  void answer_without_message(GrpcCall& call, const GrpcHeaders& headers);
  // With an error that many calls get, which the client's header table is made to hold.
  void refuse(GrpcCall& call, const std::shared_ptr<const Status>& status);
  void resume(GrpcCall& call);
  // To what is not gRPC.
  void refuse_media_type(GrpcCall& call);

 private:
  struct Callbacks;
  enum class State : uint8_t { kHandshake, kOpen, kClosed };

  bool start_session();
  void shake_hands();
  void read();
  bool write();  // false: the socket takes no more, or the connection is closed
  void want(uint32_t epoll_events);
  void check_request_bytes();
  void close_with(Status why);

  const GrpcSharedPtr shared_;
  const IoLoopPtr loop_;
  const GrpcConnectionOptions options_;
  const std::unique_ptr<TlsSocket> socket_;
  const std::string address_;
  std::string certificate_pem_;
  std::shared_ptr<const call::TenantLoad> tenant_load_;
  bool callers_differ_ = false;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, GrpcCallPtr> calls_;
  State state_ = State::kHandshake;
  uint32_t wanted_ = 0;
  // What calls are refused with, and how that is said.
  std::shared_ptr<const Status> refusal_;
  GrpcHeaders refusal_headers_;
  std::string out_;
  size_t frame_at_ = 0;   // in `out_`, of a frame that its head is still to come of
  bool blocked_ = false;  // until the socket takes more
  bool draining_ = false;
  BootTime heard_;
  BootTime idle_since_;
  std::shared_ptr<const PeerTrust> check_later_;  // when the handshake is over
  Status refused_;                                // why the client's certificate is not taken any more
  BootTime refused_at_;
  bool pinged_ = false;
};

}  // namespace uccp::doors
