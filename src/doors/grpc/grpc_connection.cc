#include "doors/grpc/grpc_connection.h"

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace uccp::doors {
namespace {

// What calls at work may still take when their client's certificate was revoked.
constexpr int64_t kRefusedMs = 500;
constexpr size_t kReadBytes = 32 * 1024;
// Read in one turn, so that one client does not keep the loop for itself.
constexpr size_t kTurnBytes = 256 * 1024;
// Gathered before it is given to the socket.
constexpr size_t kOutBytes = 64 * 1024;
constexpr size_t kFrameHeadBytes = 9;

nghttp2_nv header_of(std::string_view name, std::string_view value, uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), flags};
}

std::string_view view(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// What each answer begins with stays in the client's table; what differs from call to call is kept out of it.
std::vector<nghttp2_nv> fields_of(const GrpcHeaders& headers, bool begins, bool often = false) {
  constexpr uint8_t kStatic = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  std::vector<nghttp2_nv> out;
  out.reserve(headers.size() + 2);
  if (begins) {
    out.push_back(header_of(":status", "200", kStatic));
    out.push_back(header_of("content-type", "application/grpc", kStatic));
  }
  for (const auto& [name, value] : headers) {
    out.push_back(
        header_of(name, value, often || name == "grpc-status" ? NGHTTP2_NV_FLAG_NONE : NGHTTP2_NV_FLAG_NO_INDEX));
  }
  return out;
}

}  // namespace

// What the session calls back; `user` is the connection.
struct GrpcConnection::Callbacks {
  static GrpcConnection& connection(void* user) { return *static_cast<GrpcConnection*>(user); }
  static GrpcCall* call(void* user, int32_t stream) {
    auto& calls = connection(user).calls_;
    const auto at = calls.find(stream);
    return at == calls.end() ? nullptr : at->second.get();
  }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    GrpcConnection& self = connection(user);
    const int32_t stream = frame->hd.stream_id;
    self.calls_.emplace(stream, std::make_shared<GrpcCall>(self.shared_, self.loop_, self, stream));
    self.shared_->calls.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                       const uint8_t* value, size_t value_size, uint8_t, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (GrpcCall* found = call(user, frame->hd.stream_id))
      found->on_header(view(name, name_size), view(value, value_size));
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    GrpcCall* found = call(user, frame->hd.stream_id);
    if (found == nullptr) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) found->on_headers_complete();
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) found->on_half_close();
    return 0;
  }
  static int on_data(nghttp2_session*, uint8_t, int32_t stream, const uint8_t* data, size_t size, void* user) {
    if (GrpcCall* found = call(user, stream)) found->on_data(view(data, size));
    return 0;
  }
  static int on_stream_close(nghttp2_session*, int32_t stream, uint32_t, void* user) {
    GrpcConnection& self = connection(user);
    const auto at = self.calls_.find(stream);
    if (at == self.calls_.end()) return 0;
    const GrpcCallPtr gone = std::move(at->second);
    self.calls_.erase(at);
    self.shared_->calls.fetch_sub(1, std::memory_order_relaxed);
    if (self.calls_.empty()) self.idle_since_ = self.shared_->clock.boot();
    gone->on_closed(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
    return 0;
  }
  // A client that is answered before it has sent everything is told to stop.
  static int on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void*) {
    if (frame->hd.type != NGHTTP2_HEADERS || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    if (nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) != 0) return 0;
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  }
  // The content of a frame goes right to where the session's other bytes gather; its head follows in on_frame_data().
  static ssize_t on_fill(nghttp2_session* session, int32_t stream, uint8_t*, size_t size, uint32_t* flags,
                         nghttp2_data_source* source, void* user) {
    auto* answering = static_cast<GrpcCall*>(source->ptr);
    std::string& out = connection(user).out_;
    const size_t head = connection(user).frame_at_ = out.size();
    out.append(kFrameHeadBytes, '\0');
    const GrpcCall::Filled filled = answering->fill(out, size);
    // Then there is no frame.
    if (filled.bytes == 0) out.resize(head);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!filled.end) return filled.bytes > 0 ? static_cast<ssize_t>(filled.bytes) : NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    const GrpcHeaders trailers = answering->trailers();
    const auto fields = fields_of(trailers, false);
    if (nghttp2_submit_trailer(session, stream, fields.data(), fields.size()) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    return static_cast<ssize_t>(filled.bytes);
  }

  static int on_frame_data(nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t, nghttp2_data_source*,
                           void* user) {
    GrpcConnection& self = connection(user);
    std::memcpy(self.out_.data() + self.frame_at_, head, kFrameHeadBytes);
    return self.out_.size() < kOutBytes ? 0 : NGHTTP2_ERR_PAUSE;
  }

  static nghttp2_session_callbacks* make() {
    nghttp2_session_callbacks* out = nullptr;
    UCCP_CHECK(nghttp2_session_callbacks_new(&out) == 0, "there is memory for the callbacks");
    nghttp2_session_callbacks_set_on_begin_headers_callback(out, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(out, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(out, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(out, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(out, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(out, on_frame_sent);
    nghttp2_session_callbacks_set_send_data_callback(out, on_frame_data);
    return out;
  }
};

GrpcConnection::GrpcConnection(GrpcSharedPtr shared, IoLoopPtr loop, const GrpcConnectionOptions& options,
                               std::unique_ptr<TlsSocket> socket, std::string address)
    : shared_(std::move(shared)),
      loop_(std::move(loop)),
      options_(options),
      socket_(std::move(socket)),
      address_(std::move(address)),
      heard_(shared_->clock.boot()),
      idle_since_(heard_) {}

GrpcConnection::~GrpcConnection() { nghttp2_session_del(session_); }

void GrpcConnection::begin() {
  wanted_ = EPOLLIN;
  loop_->watch(socket_->fd(), wanted_, shared_from_this());
  shared_->connections.fetch_add(1);
}

bool GrpcConnection::start_session() {
  static nghttp2_session_callbacks* const kCallbacks = Callbacks::make();
  nghttp2_option* option = nullptr;
  if (nghttp2_option_new(&option) != 0) return false;
  // Streams that have ended are not kept for the sake of priorities.
  nghttp2_option_set_no_closed_streams(option, 1);
  const int made = nghttp2_session_server_new2(&session_, kCallbacks, this, option);
  nghttp2_option_del(option);
  if (made != 0) return false;
  const std::array settings{nghttp2_settings_entry{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options_.streams_max},
                            nghttp2_settings_entry{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options_.stream_window_bytes},
                            nghttp2_settings_entry{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                                                   static_cast<uint32_t>(shared_->metadata_bytes_max)}};
  return nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size()) == 0 &&
         nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, options_.connection_window_bytes) == 0;
}

void GrpcConnection::want(uint32_t epoll_events) {
  if (state_ == State::kClosed || wanted_ == epoll_events) return;
  wanted_ = epoll_events;
  loop_->change(socket_->fd(), wanted_, *this);
}

void GrpcConnection::on_ready(uint32_t epoll_events) {
  if (state_ == State::kHandshake) shake_hands();
  if (state_ != State::kOpen) return;
  if ((epoll_events & (EPOLLERR | EPOLLHUP)) != 0) return close();
  if ((epoll_events & EPOLLOUT) != 0) blocked_ = false;
  if (!blocked_) read();
  if (state_ == State::kOpen) loop_->flush_later(*this);
}

void GrpcConnection::shake_hands() {
  switch (socket_->handshake()) {
    case TlsSocket::Io::kDone: break;
    case TlsSocket::Io::kWantsRead: return want(EPOLLIN);
    case TlsSocket::Io::kWantsWrite: return want(EPOLLOUT);
    case TlsSocket::Io::kClosed: return close();
  }
  state_ = State::kOpen;
  heard_ = idle_since_ = shared_->clock.boot();
  certificate_pem_ = socket_->certificate_pem();
  want(EPOLLIN);
  if (!start_session()) return close();
  if (check_later_) check_client(std::exchange(check_later_, nullptr));
}

void GrpcConnection::read() {
  std::array<char, kReadBytes> space;
  size_t total = 0;
  while (state_ == State::kOpen && total < kTurnBytes) {
    size_t bytes = 0;
    const TlsSocket::Io result = socket_->read(space.data(), space.size(), bytes);
    if (result == TlsSocket::Io::kClosed) return close();
    if (result != TlsSocket::Io::kDone) break;
    total += bytes;
    const ssize_t taken = nghttp2_session_mem_recv(session_, reinterpret_cast<uint8_t*>(space.data()), bytes);
    // The session answers most offences itself; this one leaves nothing to talk about.
    if (taken < 0) return close();
  }
  if (total == 0) return;
  heard_ = shared_->clock.boot();
  pinged_ = false;
  if (total >= kTurnBytes) loop_->again(*this);
}

void GrpcConnection::flush() {
  if (state_ != State::kOpen) return;
  const auto self = shared_from_this();
  while (write()) {
    while (out_.size() < kOutBytes) {
      const uint8_t* data = nullptr;
      const ssize_t bytes = nghttp2_session_mem_send(session_, &data);
      if (bytes < 0) return close();
      if (bytes == 0) break;
      out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(bytes));
    }
    if (out_.empty()) break;
  }
  if (state_ != State::kOpen) return;
  // Of a client that does not read its answers nothing more is read.
  want(blocked_ ? EPOLLOUT : EPOLLIN);
  const bool over = nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
  if (!blocked_ && (over || (draining_ && calls_.empty()))) close();
}

bool GrpcConnection::write() {
  const TlsSocket::Io result = socket_->write(out_);
  out_.clear();
  if (result == TlsSocket::Io::kClosed) close();
  blocked_ = result == TlsSocket::Io::kWantsWrite;
  return result == TlsSocket::Io::kDone;
}

void GrpcConnection::on_tick(BootTime now) {
  if (state_ == State::kHandshake) {
    if (now.ms_since(heard_) > options_.handshake_timeout_ms) close();
    return;
  }
  if (state_ != State::kOpen) return;
  const auto self = shared_from_this();
  std::vector<GrpcCallPtr> all;
  all.reserve(calls_.size());
  for (const auto& [stream, call] : calls_) all.push_back(call);
  for (const GrpcCallPtr& call : all) call->expire(now);
  check_request_bytes();
  if (calls_.empty() && now.ms_since(idle_since_) > options_.idle_ms) drain();
  if (!refused_.is_ok() && now.ms_since(refused_at_) > kRefusedMs) end_calls(refused_);
  const int64_t silent_ms = now.ms_since(heard_);
  if (pinged_ && silent_ms > options_.ping_after_ms + options_.ping_timeout_ms) {
    return close_with(Status(Code::kCancelled, "CANCELLED", "the client did not answer a ping and counts as gone"));
  }
  if (!pinged_ && silent_ms > options_.ping_after_ms) {
    pinged_ = true;
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    loop_->flush_later(*this);
  }
}

void GrpcConnection::check_request_bytes() {
  size_t held = 0;
  for (const auto& [stream, call] : calls_) held += call->held_bytes();
  if (held <= options_.request_bytes_max) return;
  const Status status(Code::kExhausted, "REQUESTS_INCOMPLETE", "this connection has begun too many messages at once");
  const auto calls = calls_;
  for (const auto& [stream, call] : calls) {
    if (call->held_bytes() > 0) call->end(status);
  }
}

void GrpcConnection::drain() {
  if (draining_ || state_ == State::kClosed) return;
  draining_ = true;
  if (state_ == State::kHandshake) return close();
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  loop_->flush_later(*this);
}

void GrpcConnection::end_calls(const Status& status) {
  const auto calls = calls_;
  for (const auto& [stream, call] : calls) call->end(status);
}

void GrpcConnection::check_client(std::shared_ptr<const PeerTrust> clients) {
  if (state_ == State::kClosed || !refused_.is_ok()) return;
  // A handshake that has begun knows only what was trusted then.
  if (state_ == State::kHandshake) {
    check_later_ = std::move(clients);
    return;
  }
  refused_ = socket_->check_again(*clients);
  if (refused_.is_ok()) return;
  refused_at_ = shared_->clock.boot();
  drain();
}

void GrpcConnection::close() {
  close_with(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
}

void GrpcConnection::close_with(Status why) {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  loop_->unwatch(socket_->fd(), *this);
  socket_->close();
  shared_->connections.fetch_sub(1);
  shared_->calls.fetch_sub(calls_.size(), std::memory_order_relaxed);
  for (const auto& [stream, call] : std::exchange(calls_, {})) call->on_closed(why);
}

// --- for its calls --------------------------------------------------------------------------------------------------

void GrpcConnection::identify(call::Call& call) const {
  call.credentials.address = address_;
  call.credentials.certificate_pem = certificate_pem_;
}

void GrpcConnection::note_caller(const call::Call& call) {
  if (call.tenant_load == nullptr || call.tenant_load == tenant_load_) return;
  if (tenant_load_ != nullptr) callers_differ_ = true;
  else tenant_load_ = call.tenant_load;
}

void GrpcConnection::answer(GrpcCall& call, const GrpcHeaders& headers) {
  const auto fields = fields_of(headers, true);
  const nghttp2_data_provider provider{.source = {.ptr = &call}, .read_callback = Callbacks::on_fill};
  nghttp2_submit_response(session_, call.stream(), fields.data(), fields.size(), &provider);
  loop_->flush_later(*this);
}

void GrpcConnection::answer_without_message(GrpcCall& call, const GrpcHeaders& headers) {
  const auto fields = fields_of(headers, true);
  nghttp2_submit_response(session_, call.stream(), fields.data(), fields.size(), nullptr);
  loop_->flush_later(*this);
}

void GrpcConnection::refuse(GrpcCall& call, const std::shared_ptr<const Status>& status) {
  if (refusal_ != status) {
    refusal_ = status;
    refusal_headers_.clear();
    add_status(refusal_headers_, *status);
  }
  const auto fields = fields_of(refusal_headers_, true, true);
  nghttp2_submit_response(session_, call.stream(), fields.data(), fields.size(), nullptr);
  loop_->rest();
  loop_->flush_later(*this);
}

void GrpcConnection::resume(GrpcCall& call) {
  nghttp2_session_resume_data(session_, call.stream());
  loop_->flush_later(*this);
}

void GrpcConnection::refuse_media_type(GrpcCall& call) {
  const std::array fields{header_of(":status", "415"), header_of("accept", "application/grpc")};
  nghttp2_submit_response(session_, call.stream(), fields.data(), fields.size(), nullptr);
  loop_->flush_later(*this);
}

}  // namespace uccp::doors
