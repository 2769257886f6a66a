#include "bench/grpc_calls.h"

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <deque>
#include <unordered_map>

#include "bench/tls_client.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPrefixBytes = 5;
constexpr int32_t kWindowBytes = 16 << 20;
constexpr size_t kWriteBytes = 16 << 10;

std::string framed(std::string_view message) {
  std::string out(kPrefixBytes, '\0');
  for (int i = 0; i < 4; ++i) out[1 + static_cast<size_t>(i)] = static_cast<char>(message.size() >> (24 - 8 * i));
  out += message;
  return out;
}

// One HTTP/2 connection with its calls. Ended calls gather in `ended` until somebody takes them.
class Connection {
 public:
  explicit Connection(std::unique_ptr<TlsClient> socket) : socket_(std::move(socket)) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const std::array settings = {
        nghttp2_settings_entry{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        nghttp2_settings_entry{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kWindowBytes)}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
    flush();
  }
  ~Connection() { nghttp2_session_del(session_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return socket_->fd(); }
  bool closed() const { return closed_; }
  bool blocked() const { return out_at_ < out_.size(); }

  void start(const CallHeaders& headers, std::unique_ptr<GrpcCall> call, SteadyTime deadline) {
    const int32_t stream = begin(headers, std::move(call));
    if (stream >= 0) deadlines_.emplace_back(deadline, stream);
  }

  // The number of the stream; -1 if the call has ended at once.
  int32_t begin(const CallHeaders& headers, std::unique_ptr<GrpcCall> call) {
    std::vector<nghttp2_nv> fields;
    for (const auto& [name, value] : headers.fields()) {
      fields.push_back({bytes(name), bytes(value), name.size(), value.size(),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE});
    }
    nghttp2_data_provider body{{.ptr = call.get()}, next_bytes};
    const int32_t stream =
        closed_ ? -1 : nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), &body, call.get());
    call->stream = stream;
    if (stream < 0) {
      ended.push_back(std::move(call));
    } else {
      open_.emplace(stream, std::move(call));
    }
    return stream;
  }

  void send(GrpcCall& stream, std::string_view message) {
    if (closed_) return;
    if (stream.sent == stream.request.size()) {
      stream.request.clear();
      stream.sent = 0;
    }
    stream.request += framed(message);
    nghttp2_session_resume_data(session_, stream.stream);
  }

  // Ends the calls whose time is over.
  void expire(SteadyTime now) {
    while (!deadlines_.empty()) {
      const auto [deadline, stream] = deadlines_.front();
      const auto call = open_.find(stream);
      if (call != open_.end()) {
        if (deadline > now) return;
        call->second->status = kGrpcDeadlineExceeded;
        call->second->message = "the deadline has passed";
        ended.push_back(std::move(call->second));
        open_.erase(call);
        nghttp2_session_set_stream_user_data(session_, stream, nullptr);
        nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
      }
      deadlines_.pop_front();
    }
  }

  void read() {
    while (!closed_) {
      size_t got = 0;
      const TlsClient::Outcome outcome = socket_->read(buffer_.data(), buffer_.size(), got);
      if (outcome == TlsClient::Outcome::kWouldBlock) return;
      if (outcome == TlsClient::Outcome::kClosed ||
          nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer_.data()), got) < 0) {
        return close();
      }
    }
  }

  void flush() {
    while (!closed_) {
      if (out_at_ == out_.size()) {
        out_.clear();
        out_at_ = 0;
        const uint8_t* data = nullptr;
        while (out_.size() < kWriteBytes) {
          const auto bytes = nghttp2_session_mem_send(session_, &data);
          if (bytes < 0) return close();
          if (bytes == 0) break;
          out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(bytes));
        }
        if (out_.empty()) return;
      }
      const TlsClient::Outcome outcome = socket_->write(out_.data() + out_at_, out_.size() - out_at_);
      if (outcome == TlsClient::Outcome::kWouldBlock) return;
      if (outcome == TlsClient::Outcome::kClosed) return close();
      out_at_ = out_.size();
    }
  }

  std::vector<std::unique_ptr<GrpcCall>> ended;

 private:
  void close() {
    closed_ = true;
    out_.clear();
    out_at_ = 0;
    for (auto& [stream, call] : open_) ended.push_back(std::move(call));
    open_.clear();
    deadlines_.clear();
  }

  static uint8_t* bytes(std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));  // nghttp2 does not write to it
  }

  static GrpcCall* call_of(nghttp2_session* session, int32_t stream) {
    return static_cast<GrpcCall*>(nghttp2_session_get_stream_user_data(session, stream));
  }

  static ssize_t next_bytes(nghttp2_session*, int32_t, uint8_t* out, size_t room, uint32_t* flags,
                            nghttp2_data_source* source, void*) {
    auto& call = *static_cast<GrpcCall*>(source->ptr);
    const size_t bytes = std::min(room, call.request.size() - call.sent);
    std::copy_n(call.request.data() + call.sent, bytes, reinterpret_cast<char*>(out));
    call.sent += bytes;
    if (call.more) return bytes == 0 ? ssize_t{NGHTTP2_ERR_DEFERRED} : static_cast<ssize_t>(bytes);
    if (call.sent == call.request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(bytes);
  }

  static int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t, void*) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_bytes);
    if (!key.starts_with("grpc-")) return 0;
    GrpcCall* call = call_of(session, frame->hd.stream_id);
    if (call == nullptr) return 0;
    const std::string_view text(reinterpret_cast<const char*>(value), value_bytes);
    if (key == "grpc-status") {
      call->message.clear();
      std::from_chars(text.data(), text.data() + text.size(), call->status);
    }
    if (key == "grpc-message") call->message = text;
    return 0;
  }

  static int on_data(nghttp2_session* session, uint8_t, int32_t stream, const uint8_t* data, size_t bytes, void*) {
    GrpcCall* call = call_of(session, stream);
    if (call == nullptr) return 0;
    call->reply.append(reinterpret_cast<const char*>(data), bytes);
    if (call->streaming) take_messages(*call);
    return 0;
  }

  static void take_messages(GrpcCall& stream) {
    const std::string_view all = stream.reply;
    size_t at = 0;
    while (all.size() - at >= kPrefixBytes) {
      size_t size = 0;
      for (size_t i = 1; i < kPrefixBytes; ++i) size = size << 8 | static_cast<uint8_t>(all[at + i]);
      if (all.size() - at - kPrefixBytes < size) break;
      stream.caller.on_message(stream, all.substr(at + kPrefixBytes, size));
      at += kPrefixBytes + size;
    }
    stream.reply.erase(0, at);
  }

  static int on_close(nghttp2_session*, int32_t stream, uint32_t, void* self) {
    auto& connection = *static_cast<Connection*>(self);
    const auto call = connection.open_.find(stream);
    if (call == connection.open_.end()) return 0;
    connection.ended.push_back(std::move(call->second));
    connection.open_.erase(call);
    return 0;
  }

  const std::unique_ptr<TlsClient> socket_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, std::unique_ptr<GrpcCall>> open_;
  std::deque<std::pair<SteadyTime, int32_t>> deadlines_;  // in order, as all calls of a run have the same time
  std::array<char, 64 << 10> buffer_;
  std::string out_;
  size_t out_at_ = 0;
  bool closed_ = false;
};

using Connections = std::vector<std::unique_ptr<Connection>>;

class Calls final : public GrpcCalls {
 public:
  Calls(SslContext context, Connections connections)
      : context_(std::move(context)), connections_(std::move(connections)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (size_t i = 0; i < connections_.size(); ++i) {
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i]->fd(), &event);
    }
  }
  ~Calls() override { ::close(epoll_); }

  size_t connections() const override { return connections_.size(); }

  void start(size_t at, const CallHeaders& headers, std::unique_ptr<GrpcCall> call, SteadyTime deadline) override {
    on(at).start(headers, std::move(call), deadline);
  }

  GrpcCall& open_stream(size_t at, const CallHeaders& headers, GrpcCaller& caller) override {
    auto stream = std::make_unique<GrpcCall>(caller, std::string_view());
    stream->request.clear();
    stream->streaming = stream->more = true;
    GrpcCall& opened = *stream;
    on(at).begin(headers, std::move(stream));
    return opened;
  }
  void listen(size_t at, const CallHeaders& headers, std::string_view request, GrpcCaller& caller) override {
    auto stream = std::make_unique<GrpcCall>(caller, request);
    stream->streaming = true;
    on(at).begin(headers, std::move(stream));
  }
  void send(size_t at, GrpcCall& stream, std::string_view message) override { on(at).send(stream, message); }

  size_t turn(SteadyTime limit) override {
    bool waiting = true;
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i]->flush();
      watch(i);
      waiting = waiting && connections_[i]->ended.empty();
    }
    // Deadlines are looked at this often.
    const auto wait = std::min<std::chrono::nanoseconds>(limit - Clock::now(), std::chrono::milliseconds(10));
    timespec timeout{0, waiting && wait.count() > 0 ? wait.count() : 0};
    std::array<epoll_event, 64> events;
    const int count = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      Connection& connection = *connections_[events[static_cast<size_t>(i)].data.u64];
      connection.read();
      if (connection.closed()) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, connection.fd(), nullptr);
    }
    size_t ended = 0;
    const SteadyTime now = Clock::now();
    for (const auto& connection : connections_) {
      connection->expire(now);
      const auto calls = std::exchange(connection->ended, {});
      for (const auto& call : calls) call->caller.on_ended(*call, now);
      ended += calls.size();
    }
    return ended;
  }

  bool all_closed() const override {
    for (const auto& connection : connections_) {
      if (!connection->closed()) return false;
    }
    return true;
  }

 private:
  Connection& on(size_t at) { return *connections_[at % connections_.size()]; }

  void watch(size_t at) {
    Connection& connection = *connections_[at];
    const bool writable = connection.blocked();
    if (connection.closed() || writable == blocked_[at]) return;
    blocked_[at] = writable;
    epoll_event event{.events = EPOLLIN | (writable ? uint32_t{EPOLLOUT} : 0), .data = {.u64 = at}};
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd(), &event);
  }

  const SslContext context_;
  const Connections connections_;
  const int epoll_;
  std::vector<bool> blocked_ = std::vector<bool>(connections_.size(), false);
};

}  // namespace

CallHeaders::CallHeaders(std::string_view method, int64_t deadline_ms, const std::string& consistency)
    : fields_{{":method", "POST"},         {":scheme", "https"}, {":path", "/" + std::string(method)},
              {":authority", "localhost"}, {"te", "trailers"},   {"content-type", "application/grpc"}} {
  if (deadline_ms > 0) fields_.emplace_back("grpc-timeout", std::to_string(deadline_ms) + "m");
  if (!consistency.empty()) fields_.emplace_back("uccp-consistency", consistency);
}

GrpcCall::GrpcCall(GrpcCaller& who, std::string_view message) : caller(who), request(framed(message)) {}

std::string_view GrpcCall::answer() const {
  return reply.size() < kPrefixBytes ? std::string_view() : std::string_view(reply).substr(kPrefixBytes);
}

Result<std::unique_ptr<GrpcCalls>> GrpcCalls::connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                      int connections) {
  UCCP_TRY(SslContext context, make_client_context(tls, "h2"));
  Connections opened;
  for (int i = 0; i < connections; ++i) {
    const std::string& target = targets[static_cast<size_t>(i) % targets.size()];
    UCCP_TRY(auto socket, TlsClient::connect(*context, target, 10));
    opened.push_back(std::make_unique<Connection>(std::move(socket)));
  }
  return std::make_unique<Calls>(std::move(context), std::move(opened));
}

}  // namespace uccp::bench
