#include "bench/event_stream.h"

#include <nghttp2/nghttp2.h>
#include <poll.h>

#include <array>
#include <map>
#include <memory>

#include "bench/tls_client.h"

namespace uccp::bench {
namespace {

constexpr size_t kPrefixBytes = 5;
constexpr int32_t kWindowBytes = 16 << 20;
constexpr int kWaitMs = 10;

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

class Reader {
 public:
  Reader(TlsClient& socket, const std::function<bool(std::string_view)>& take) : socket_(socket), take_(take) {
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
  }
  ~Reader() { nghttp2_session_del(session_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void open(const std::string& path, std::string* body) {
    const auto bytes = [](std::string_view text) {
      return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));  // nghttp2 does not write to it
    };
    const auto field = [&](std::string_view name, std::string_view value) {
      return nghttp2_nv{bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
    };
    const std::array fields = {field(":method", "POST"), field(":scheme", "https"),
                               field(":path", path),     field(":authority", "localhost"),
                               field("te", "trailers"),  field("content-type", "application/grpc")};
    nghttp2_data_provider provider{{.ptr = body},
                                   [](nghttp2_session*, int32_t, uint8_t* out, size_t room, uint32_t* flags,
                                      nghttp2_data_source* source, void*) -> ssize_t {
                                     const auto& text = *static_cast<std::string*>(source->ptr);
                                     if (room < text.size()) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
                                     std::copy(text.begin(), text.end(), reinterpret_cast<char*>(out));
                                     *flags |= NGHTTP2_DATA_FLAG_EOF;
                                     return static_cast<ssize_t>(text.size());
                                   }};
    streams_[nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), &provider, nullptr)];
  }

  Status run() {
    while (!stopped_ && !streams_.empty()) {
      if (!flush()) return lost();
      pollfd wait{socket_.fd(), POLLIN, 0};
      ::poll(&wait, 1, kWaitMs);
      while (!stopped_) {
        size_t got = 0;
        const TlsClient::Outcome outcome = socket_.read(buffer_.data(), buffer_.size(), got);
        if (outcome == TlsClient::Outcome::kWouldBlock) break;
        if (outcome == TlsClient::Outcome::kClosed) return lost();
        if (nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer_.data()), got) < 0)
          return lost();
        if (!flush()) return lost();
      }
    }
    return error_;
  }

 private:
  static Status lost() { return Status(Code::kUnavailable, "BENCH_FAILED", "the connection of a stream was lost"); }

  bool flush() {
    while (true) {
      if (out_.empty()) {
        const uint8_t* data = nullptr;
        while (true) {
          const auto bytes = nghttp2_session_mem_send(session_, &data);
          if (bytes < 0) return false;
          if (bytes == 0) break;
          out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(bytes));
        }
        if (out_.empty()) return true;
      }
      const TlsClient::Outcome outcome = socket_.write(out_.data(), out_.size());
      if (outcome == TlsClient::Outcome::kWouldBlock) return true;
      if (outcome == TlsClient::Outcome::kClosed) return false;
      out_.clear();
    }
  }

  void take(std::string& pending, std::string_view data) {
    if (!pending.empty()) {
      pending += data;
      data = pending;
    }
    size_t at = 0;
    while (!stopped_ && data.size() - at >= kPrefixBytes) {
      const size_t size = big_endian(data.substr(at + 1, 4));
      if (data.size() - at - kPrefixBytes < size) break;
      stopped_ = !take_(data.substr(at + kPrefixBytes, size));
      at += kPrefixBytes + size;
    }
    std::string rest(data.substr(at));
    pending = std::move(rest);
  }

  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_bytes);
    const std::string_view text(reinterpret_cast<const char*>(value), value_bytes);
    auto& reader = *static_cast<Reader*>(self);
    if (key == "grpc-status" && text != "0")
      reader.error_ = Status(Code::kUnavailable, "BENCH_FAILED", "status " + std::string(text));
    if (key == "grpc-message" && !reader.error_.is_ok()) {
      reader.error_ = Status(Code::kUnavailable, "BENCH_FAILED", std::string(text));
    }
    return 0;
  }
  static int on_data(nghttp2_session*, uint8_t, int32_t stream, const uint8_t* data, size_t bytes, void* self) {
    auto& reader = *static_cast<Reader*>(self);
    const auto found = reader.streams_.find(stream);
    if (found != reader.streams_.end()) reader.take(found->second, {reinterpret_cast<const char*>(data), bytes});
    return 0;
  }
  static int on_close(nghttp2_session*, int32_t stream, uint32_t, void* self) {
    static_cast<Reader*>(self)->streams_.erase(stream);
    return 0;
  }

  TlsClient& socket_;
  const std::function<bool(std::string_view)>& take_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, std::string> streams_;  // what of the next message came
  std::array<char, 64 << 10> buffer_;
  std::string out_;
  bool stopped_ = false;
  Status error_;
};

}  // namespace

Status read_streams(const std::string& target, const TlsIdentity& tls, const std::string& method,
                    const std::string& request, int streams,
                    const std::function<bool(std::string_view message)>& take) {
  UCCP_TRY(const SslContext context, make_client_context(tls, "h2"));
  UCCP_TRY(const auto socket, TlsClient::connect(*context, target, 10));
  std::string body(kPrefixBytes, '\0');
  for (size_t i = 0; i < 4; ++i) body[1 + i] = static_cast<char>(request.size() >> (24 - 8 * i));
  body += request;
  Reader reader(*socket, take);
  for (int i = 0; i < streams; ++i) reader.open("/" + method, &body);
  return reader.run();
}

}  // namespace uccp::bench
