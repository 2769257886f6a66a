// HTTP/1.1 from any client: how the bytes are cut changes nothing of what is understood, no header has a line break in
// it, and no body is larger than its limit.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/metrics.h"
#include "doors/rest/http_connection.h"

namespace {

using namespace uccp;
using namespace uccp::doors;

class StillClock final : public Clock {
 public:
  BootTime boot() const override { return BootTime{1'000'000}; }
  WallTime wall() const override { return WallTime{1'700'000'000'000'000}; }
};

// Gives the bytes in pieces, each when the loop below asks for it.
class Pieces final : public Transport {
 public:
  Pieces(std::string_view bytes, size_t step) : bytes_(bytes), step_(step) {}
  void handshake(Done done) override { done(true, 0); }
  void read_some(char* to, size_t size, Done done) override {
    to_ = to;
    size_ = size;
    reading_ = std::move(done);
  }
  void write_some(const char* from, size_t size, Done done) override {
    written.append(from, size);
    done(true, size);
  }
  void shut_down() override {}
  void close() override { closed_ = true; }
  void post(std::move_only_function<void()> task) override { task(); }
  std::string address() const override { return "10.0.0.1:1"; }
  std::string certificate_pem() const override { return {}; }

  // False: nothing is left, or nobody reads.
  bool give() {
    if (closed_ || !reading_) return false;
    Done done = std::move(reading_);
    reading_ = nullptr;
    const size_t count = std::min({step_, size_, bytes_.size()});
    if (count == 0) return false;
    std::memcpy(to_, bytes_.data(), count);
    bytes_.remove_prefix(count);
    done(true, count);
    return true;
  }
  std::string written;

 private:
  std::string_view bytes_;
  const size_t step_;
  char* to_ = nullptr;
  size_t size_ = 0;
  Done reading_;
  bool closed_ = false;
};

struct Recorder final : HttpHandler {
  BodyMode body_mode(const HttpRequest& head) override {
    return head.path == "/stream" ? BodyMode::kStreamed : BodyMode::kBuffered;
  }
  void handle(HttpRequest request, HttpExchangePtr exchange) override {
    std::string line = request.verb + " " + request.path + "?" + request.query;
    for (const auto& [name, value] : request.headers) {
      UCCP_CHECK((name + value).find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos,
                 "a header is one line");
      line += "|" + name + "=" + value;
    }
    UCCP_CHECK(request.body.size() <= 4096, "the limit of bodies holds");
    heard.push_back(line + "#" + request.body);
    exchange->respond({.status = 200, .headers = {}, .body = "ok"});
  }
  // Not noted: of bytes that end inside a message, how soon it shows that they are none depends on how they come.
  HttpResponse refusal(int status, std::string_view, std::string_view) override {
    return {.status = status, .headers = {}, .body = {}};
  }
  std::vector<std::string> heard;
};

std::vector<std::string> hear(std::string_view bytes, size_t step) {
  static MetricsRegistry metrics;
  static HttpCounters counters{metrics.gauge("c", "c"), metrics.counter("r", "r"), metrics.counter("j", "j")};
  static const StillClock clock;
  // Where exactly a header is too long depends on how it comes, so none is here.
  static const HttpServerOptions options{.header_bytes_max = 1 << 20, .body_bytes_max = 4096};
  Recorder recorder;
  auto transport = std::make_unique<Pieces>(bytes, step);
  Pieces& pieces = *transport;
  const auto connection =
      std::make_shared<HttpConnection>(std::move(transport), options, recorder, clock, counters, false);
  connection->begin();
  while (pieces.give()) {}
  connection->close();
  return recorder.heard;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = hear(bytes, size);
  const auto cut = hear(bytes, 1 + data[0] % 7);
  UCCP_CHECK(whole == cut, "how the bytes are cut changes nothing");
  return 0;
}
