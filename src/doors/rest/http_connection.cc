#include "doors/rest/http_connection.h"

#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>

#include <algorithm>
#include <charconv>
#include <ctime>

namespace uccp::doors {
namespace {

namespace http = boost::beast::http;

// What an answer may still take when its client's certificate was revoked.
constexpr int64_t kRefusedMs = 500;
constexpr std::string_view kLastChunk = "0\r\n\r\n";

// A body that grows by what has come. Beast's own reserves what Content-Length claims.
struct GrowingBody {
  using value_type = std::string;
  struct reader {
    template <bool isRequest, class Fields>
    reader(http::header<isRequest, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, boost::beast::error_code& error) { error = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, boost::beast::error_code& error) {
      error = {};
      size_t bytes = 0;
      for (const auto part : boost::beast::buffers_range_ref(buffers)) {
        body_.append(static_cast<const char*>(part.data()), part.size());
        bytes += part.size();
      }
      return bytes;
    }
    void finish(boost::beast::error_code& error) { error = {}; }
    value_type& body_;
  };
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// "Mon, 23 Nov 2026 20:21:00 GMT", kept for a second.
std::string_view http_date(int64_t wall_us) {
  thread_local int64_t second = -1;
  thread_local char text[40];
  if (wall_us / 1'000'000 != second) {
    second = wall_us / 1'000'000;
    const std::time_t time = second;
    std::tm parts{};
    gmtime_r(&time, &parts);
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  }
  return text;
}

// Whether the body's framing is one that every reader understands in the same way: none, or chunked and nothing else.
template <typename Message>
bool is_plainly_framed(const Message& message) {
  const auto [from, to] = message.equal_range(http::field::transfer_encoding);
  if (from == to) return true;
  return message.version() >= 11 && std::next(from) == to &&
         lower({from->value().data(), from->value().size()}) == "chunked";
}

bool is_safe(std::string_view header) {
  return header.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

}  // namespace

struct HttpConnection::Parser {
  http::request_parser<GrowingBody> http;
};

// Ends with the answer or the connection, whichever is first; from then on it does nothing.
class HttpConnection::Exchange final : public HttpExchange {
 public:
  Exchange(std::shared_ptr<HttpConnection> connection, bool head, bool http11)
      : connection_(std::move(connection)), head_(head), http11_(http11) {}

  void set_events(HttpEvents events) override { events_ = std::move(events); }

  void respond(HttpResponse response) override {
    if (over_ || started_) return;
    std::string head = connection_->head_of(response, Framing::kLength);
    if (head_) response.body.clear();
    // One record for head and body, if that is cheap.
    if (response.body.size() <= kWriteBytes) {
      head += response.body;
      connection_->put(std::move(head));
    } else {
      connection_->put(std::move(head));
      connection_->put(std::move(response.body));
    }
    complete();
  }

  void start(HttpResponse head) override {
    if (over_ || started_) return;
    started_ = true;
    if (!http11_) connection_->close_after_ = true;
    connection_->put(connection_->head_of(head, http11_ ? Framing::kChunked : Framing::kUntilClose));
    if (head_) complete();
  }

  void write(std::string chunk) override {
    if (over_ || !started_ || chunk.empty()) return;
    if (!http11_) return connection_->put(std::move(chunk));
    char size[20];
    const auto [end, error] = std::to_chars(size, size + sizeof size, chunk.size(), 16);
    std::string framed(size, end);
    framed.reserve(framed.size() + chunk.size() + 4);
    framed.append("\r\n").append(chunk).append("\r\n");
    connection_->put(std::move(framed));
  }

  void end() override {
    if (over_ || !started_) return;
    if (http11_) connection_->put("0\r\n\r\n");
    complete();
  }

  void abort() override {
    if (!over_) connection_->close();
  }

  size_t queued_bytes() const override { return queued_.load(std::memory_order_relaxed); }

  void post(std::move_only_function<void()> task) override { connection_->transport_->post(std::move(task)); }

  void complete() {
    over_ = true;
    connection_->answer_complete();
  }
  // The events stay: one of them may be what runs just now. Handlers drop the exchange when it is over.
  void closed() {
    if (over_) return;
    over_ = true;
    if (events_.on_closed) events_.on_closed();
  }

  std::atomic<size_t> queued_{0};
  HttpEvents events_;

 private:
  const std::shared_ptr<HttpConnection> connection_;
  const bool head_;
  const bool http11_;
  bool started_ = false;
  bool over_ = false;
};

HttpConnection::HttpConnection(std::unique_ptr<Transport> transport, const HttpServerOptions& options,
                               HttpHandler& handler, const Clock& clock, HttpCounters& counters, bool refuse)
    : transport_(std::move(transport)),
      options_(options),
      handler_(handler),
      clock_(clock),
      counters_(counters),
      refuse_(refuse) {
  counters_.connections.add(1);
}

HttpConnection::~HttpConnection() = default;

bool HttpConnection::is_idle() const { return state_ == State::kIdle && !writing_; }

void HttpConnection::set_state(State state, int64_t timeout_ms) {
  state_ = state;
  has_deadline_ = timeout_ms > 0;
  if (has_deadline_) deadline_ = clock_.boot().plus_ms(timeout_ms);
}

int64_t HttpConnection::pace_ms(BootTime began, size_t bytes, int64_t timeout_ms) const {
  const int64_t whole_ms = timeout_ms + static_cast<int64_t>(bytes) * 1000 / options_.bytes_per_s_min;
  return std::clamp<int64_t>(whole_ms - clock_.boot().ms_since(began), 1, timeout_ms);
}

void HttpConnection::begin() {
  set_state(State::kHandshake, options_.header_timeout_ms);
  transport_->handshake([self = shared_from_this()](bool ok, size_t) {
    if (self->state_ == State::kClosed) return;
    if (!ok) return self->close();
    self->certificate_pem_ = self->transport_->certificate_pem();
    self->next_request();
    if (self->check_later_) self->check_client(std::exchange(self->check_later_, nullptr));
    self->process();
  });
}

void HttpConnection::next_request() {
  parser_ = std::make_unique<Parser>();
  parser_->http.header_limit(static_cast<std::uint32_t>(options_.header_bytes_max));
  parser_->http.body_limit(boost::none);  // checked here: a streamed body has no limit
  request_ = {};
  streamed_ = false;
  body_done_ = false;
  set_state(State::kIdle, options_.idle_timeout_ms);
}

void HttpConnection::read() {
  if (reading_ || state_ == State::kClosed) return;
  if (in_.size() - in_at_ >= kReadAheadMax) return;
  reading_ = true;
  read_space_.resize(kReadBytes);
  transport_->read_some(read_space_.data(), read_space_.size(),
                        [self = shared_from_this()](bool ok, size_t bytes) { self->on_read(ok, bytes); });
}

void HttpConnection::on_read(bool ok, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (!ok) return close();
  if (state_ == State::kLinger) return read();
  if (in_at_ > 0) {
    in_.erase(0, in_at_);
    in_at_ = 0;
  }
  in_.append(read_space_.data(), bytes);
  process();
}

// Entered again when an answer completes inside a handler: then the outer one goes on.
void HttpConnection::process() {
  if (processing_) return;
  processing_ = true;
  while (state_ == State::kIdle || state_ == State::kHeader || state_ == State::kBody) {
    if (state_ == State::kIdle) {
      if (draining_) {
        linger(false);
        break;
      }
      // Answers that nobody reads do not pile up: the next request waits until they are taken.
      if (in_at_ == in_.size() || out_bytes_ > kDrainedBytes) break;
      set_state(State::kHeader, options_.header_timeout_ms);
    }
    if (!parse()) break;
  }
  processing_ = false;
  read();
}

bool HttpConnection::parse() {
  auto& parser = parser_->http;
  if (in_at_ == in_.size()) return false;
  // The parser takes fewer bytes behind the last chunk's first line for its own mistake and ends the program. No body
  // can end with fewer, since what belongs to its end stays here until all of it has come.
  if (state_ == State::kBody && parser.chunked() && in_.size() - in_at_ < kLastChunk.size()) return false;
  boost::beast::error_code error;
  const size_t used = parser.put(boost::asio::const_buffer(in_.data() + in_at_, in_.size() - in_at_), error);
  in_at_ += used;
  if (error == http::error::need_more) error = {};
  if (error == http::error::header_limit) {
    refuse(431, "HEADER_TOO_LARGE", "the header has more than " + std::to_string(options_.header_bytes_max) + " bytes");
    return false;
  }
  if (error) {
    refuse(400, "HTTP_INVALID", "the request is not HTTP/1.1: " + error.message());
    return false;
  }
  if (state_ == State::kHeader && parser.is_header_done()) {
    on_header();
    if (state_ != State::kBody) return true;
  }
  if (state_ == State::kBody) {
    body_bytes_ += used;
    if (used > 0) set_state(State::kBody, pace_ms(body_began_, body_bytes_, options_.body_timeout_ms));
    body_bytes();
    return used > 0 || state_ != State::kBody;
  }
  return used > 0;
}

void HttpConnection::on_header() {
  auto& parser = parser_->http;
  const auto& message = parser.get();
  request_.verb = message.method_string();
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  request_.path = target.substr(0, question);
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
  for (const auto& field : message) {
    request_.headers.emplace_back(lower({field.name_string().data(), field.name_string().size()}),
                                  std::string(field.value().data(), field.value().size()));
  }
  request_.address = transport_->address();
  request_.certificate_pem = certificate_pem_;
  request_.has_body = parser.chunked() || parser.content_length().value_or(0) > 0;
  close_after_ = !parser.keep_alive() || draining_;
  if (refuse_)
    return refuse(503, "CONNECTIONS_EXHAUSTED", "this node has all the connections it takes; use another one or retry");
  if (!request_.path.starts_with('/')) return refuse(400, "HTTP_INVALID", "the request target must be a path");
  if (!is_plainly_framed(message)) {
    return refuse(400, "HTTP_INVALID", "the only Transfer-Encoding that is taken is chunked, once and in HTTP/1.1");
  }
  streamed_ = handler_.body_mode(request_) == BodyMode::kStreamed;
  if (!streamed_ && parser.content_length().value_or(0) > options_.body_bytes_max) {
    return refuse(413, "REQUEST_TOO_LARGE",
                  "the body has " + std::to_string(*parser.content_length()) + " bytes; at most " +
                      std::to_string(options_.body_bytes_max) + " are taken");
  }
  parser.eager(true);
  body_began_ = clock_.boot();
  body_bytes_ = 0;
  set_state(State::kBody, options_.body_timeout_ms);
  if (request_.has_body && lower(request_.header("expect")) == "100-continue") put("HTTP/1.1 100 Continue\r\n\r\n");
  body_done_ = parser.is_done();
  if (streamed_) dispatch();
}

void HttpConnection::dispatch() {
  const bool head = request_.verb == "HEAD";
  const bool http11 = parser_->http.get().version() >= 11;
  exchange_ = std::make_shared<Exchange>(shared_from_this(), head, http11);
  handler_.handle(std::move(request_), exchange_);
}

void HttpConnection::body_bytes() {
  auto& parser = parser_->http;
  std::string& body = parser.get().body();
  if (streamed_) {
    if (!body.empty() && exchange_ != nullptr) {
      const std::string chunk = std::move(body);
      body.clear();
      const auto exchange = exchange_;
      if (exchange->events_.on_body) exchange->events_.on_body(chunk);
      if (state_ != State::kBody) return;  // it has answered
    }
    if (!parser.is_done()) return;
    body_done_ = true;
    set_state(State::kHandling, 0);
    const auto exchange = exchange_;
    if (exchange != nullptr && exchange->events_.on_body_end) exchange->events_.on_body_end();
    return;
  }
  if (body.size() > options_.body_bytes_max) {
    return refuse(413, "REQUEST_TOO_LARGE",
                  "the body has more than " + std::to_string(options_.body_bytes_max) + " bytes");
  }
  if (!parser.is_done()) return;
  body_done_ = true;
  request_.body = std::move(body);
  set_state(State::kHandling, 0);
  dispatch();
}

void HttpConnection::refuse(int status, std::string_view reason, std::string_view detail) {
  (status == 503 ? counters_.refused : counters_.rejected).add();
  close_after_ = true;
  const HttpResponse response = handler_.refusal(status, reason, detail);
  put(head_of(response, Framing::kLength).append(response.body));
  linger(status != 408);
}

void HttpConnection::answer_complete() {
  exchange_.reset();
  if (state_ == State::kClosed) return;
  // The rest of a body that nobody wants would be taken for the next request.
  if (close_after_ || !body_done_) return linger(!body_done_);
  next_request();
  process();
}

void HttpConnection::linger(bool client_sends) {
  set_state(State::kLinger, kLingerMs);
  in_.clear();
  in_at_ = 0;
  // To say goodbye while the client is still sending would break the connection before it has read the answer.
  shut_down_after_ = !client_sends;
  if (shut_down_after_ && !writing_ && out_.empty()) transport_->shut_down();
  read();
}

std::string HttpConnection::head_of(const HttpResponse& response, Framing framing) {
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  head.append(reason.data(), reason.size()).append("\r\nDate: ").append(http_date(clock_.wall().us)).append("\r\n");
  for (const auto& [name, value] : response.headers) {
    if (is_safe(name) && is_safe(value)) head.append(name).append(": ").append(value).append("\r\n");
  }
  if (framing == Framing::kChunked) {
    head.append("Transfer-Encoding: chunked\r\n");
  } else if (framing == Framing::kLength && response.status != 204 && response.status != 304) {
    head.append("Content-Length: ").append(std::to_string(response.body.size())).append("\r\n");
  }
  if (close_after_ || draining_) {
    close_after_ = true;
    head.append("Connection: close\r\n");
  }
  return head.append("\r\n");
}

void HttpConnection::put(std::string bytes) {
  if (state_ == State::kClosed) return;
  if (out_bytes_ == 0) {
    write_began_ = clock_.boot();
    written_ = 0;
  }
  out_bytes_ += bytes.size();
  if (exchange_ != nullptr) exchange_->queued_.store(out_bytes_, std::memory_order_relaxed);
  out_.push_back(std::move(bytes));
  write();
}

void HttpConnection::write() {
  if (writing_ || state_ == State::kClosed) return;
  if (write_at_ == write_space_.size()) {
    write_at_ = 0;
    if (out_.empty()) {
      write_space_.clear();
      return;
    }
    write_space_ = std::move(out_.front());
    out_.pop_front();
    while (!out_.empty() && write_space_.size() + out_.front().size() <= kWriteBytes) {
      write_space_ += out_.front();
      out_.pop_front();
    }
  }
  writing_ = true;
  write_deadline_ = clock_.boot().plus_ms(pace_ms(write_began_, written_, options_.write_timeout_ms));
  transport_->write_some(write_space_.data() + write_at_, write_space_.size() - write_at_,
                         [self = shared_from_this()](bool ok, size_t bytes) { self->on_write(ok, bytes); });
}

void HttpConnection::on_write(bool ok, size_t bytes) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (!ok) return close();
  write_at_ += bytes;
  const bool was_full = out_bytes_ > kDrainedBytes;
  out_bytes_ -= std::min(out_bytes_, bytes);
  written_ += bytes;
  write();
  const bool drained = out_bytes_ == 0 || (was_full && out_bytes_ <= kDrainedBytes);
  if (const auto exchange = exchange_; exchange != nullptr) {
    exchange->queued_.store(out_bytes_, std::memory_order_relaxed);
    if (drained && exchange->events_.on_drain) exchange->events_.on_drain();
  }
  if (state_ == State::kLinger && out_bytes_ == 0 && shut_down_after_) transport_->shut_down();
  if (state_ == State::kIdle && drained) process();
}

void HttpConnection::tick(BootTime now) {
  const auto self = shared_from_this();
  if (writing_ && now >= write_deadline_) return close();
  if (refused_ && now >= refused_until_) return close();
  if (has_deadline_ && now >= deadline_) {
    has_deadline_ = false;
    switch (state_) {
      case State::kHeader: return refuse(408, "REQUEST_TIMEOUT", "the header did not come in time");
      case State::kBody:
        // A streamed upload has an exchange that must learn of it.
        if (exchange_ == nullptr) return refuse(408, "REQUEST_TIMEOUT", "the body did not come in time");
        return close();
      case State::kIdle:
        // Its last answer is still being taken, and has a time of its own.
        if (out_bytes_ > 0) return set_state(State::kIdle, options_.idle_timeout_ms);
        return close();
      default: return close();
    }
  }
  const auto exchange = exchange_;
  if (exchange != nullptr && exchange->events_.on_tick) exchange->events_.on_tick(now);
}

void HttpConnection::check_client(std::shared_ptr<const PeerTrust> clients) {
  if (state_ == State::kClosed || refused_) return;
  // A handshake that has begun knows only what was trusted then.
  if (state_ == State::kHandshake) {
    check_later_ = std::move(clients);
    return;
  }
  if (transport_->check_client(*clients).is_ok()) return;
  refused_ = true;
  refused_until_ = clock_.boot().plus_ms(kRefusedMs);
  drain();
}

void HttpConnection::drain() {
  draining_ = true;
  if (state_ == State::kIdle && in_at_ == in_.size()) close();
}

void HttpConnection::close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  set_state(State::kClosed, 0);
  counters_.connections.add(-1);
  transport_->close();
  out_.clear();
  if (const auto exchange = std::move(exchange_); exchange != nullptr) exchange->closed();
  if (on_gone) on_gone(this);
}

}  // namespace uccp::doors
