#include "runtime/net_probe.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "base/check.h"

namespace uccp::runtime {
namespace {

constexpr size_t kBodyBytesKept = 64;
constexpr std::string_view kGrpcPath = "/grpc.health.v1.Health/Check";

// Addresses that are not those of services. Refused where the connection is made, so that names do not get around it.
bool forbidden(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
    return (ip >> 16) == 0xA9FE || (ip >> 28) >= 0xE || ip == 0;
  }
  if (address->sa_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    return IN6_IS_ADDR_LINKLOCAL(&ip) || IN6_IS_ADDR_MULTICAST(&ip) || IN6_IS_ADDR_UNSPECIFIED(&ip);
  }
  return true;
}

curl_socket_t open_socket(void* refused, curlsocktype, curl_sockaddr* address) {
  if (forbidden(&address->addr)) {
    *static_cast<bool*>(refused) = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

std::string url_of(const NetProbe& p) {
  const bool v6 = p.host.find(':') != std::string::npos && !p.host.starts_with('[');
  const std::string at = (v6 ? "[" + p.host + "]" : p.host) + ":" + std::to_string(p.port);
  if (p.kind == NetProbe::Kind::kGrpc) return "http://" + at + std::string(kGrpcPath);
  if (p.kind == NetProbe::Kind::kTcp) return "http://" + at;
  std::string path = p.endpoint.empty() ? "/health" : p.endpoint;
  if (!path.starts_with('/')) path.insert(0, "/");
  return (p.kind == NetProbe::Kind::kHttps ? "https://" : "http://") + at + path;
}

// A HealthCheckRequest with the service as field 1, in gRPC's frame.
std::string health_request(const std::string& service) {
  std::string message;
  if (!service.empty())
    message = std::string("\x0a") + static_cast<char>(std::min<size_t>(service.size(), 127)) + service.substr(0, 127);
  return std::string(4, '\0') + static_cast<char>(message.size()) + message;
}

}  // namespace

// One probe under way. Its address is curl's, so it does not move.
struct Running {
  NetProbe probe;
  NetProber::Done done;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  std::string request, body, grpc_status, grpc_message;
  bool refused = false;
  char error[CURL_ERROR_SIZE] = {};

  ~Running() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }

  static size_t take_body(char* data, size_t size, size_t count, void* to) {
    Running& self = *static_cast<Running*>(to);
    // Only the beginning matters; the rest is read and dropped, up to the timeout.
    self.body.append(data, std::min(size * count, kBodyBytesKept - std::min(kBodyBytesKept, self.body.size())));
    return size * count;
  }
  static size_t take_header(char* data, size_t size, size_t count, void* to) {
    Running& self = *static_cast<Running*>(to);
    std::string line(data, size * count);
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    if (line.starts_with("grpc-status: ")) self.grpc_status = line.substr(13);
    if (line.starts_with("grpc-message: ")) self.grpc_message = line.substr(14);
    return size * count;
  }

  bool begin() {
    easy = curl_easy_init();
    if (easy == nullptr) return false;
    curl_easy_setopt(easy, CURLOPT_URL, url_of(probe).c_str());
    curl_easy_setopt(easy, CURLOPT_PRIVATE, this);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(probe.timeout_ms));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(probe.timeout_ms));
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &refused);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "uccp-health-check");
    if (probe.tls_skip_verify) {
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    for (const auto& [name, value] : probe.headers) headers = curl_slist_append(headers, (name + ": " + value).c_str());
    if (probe.kind == NetProbe::Kind::kTcp) curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    if (probe.kind == NetProbe::Kind::kGrpc) {
      request = health_request(probe.endpoint);
      headers = curl_slist_append(headers, "Content-Type: application/grpc");
      headers = curl_slist_append(headers, "TE: trailers");
      curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.data());
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    return true;
  }

  std::string grpc_outcome() const {
    if (grpc_status == "12") return "the server does not speak grpc.health.v1";
    if (grpc_status == "5") return "the server knows no service " + probe.endpoint;
    if (grpc_status != "0")
      return "gRPC status " + (grpc_status.empty() ? "missing" : grpc_status + " " + grpc_message);
    // Frame header, then field 1 of HealthCheckResponse: 1 is SERVING.
    if (body.size() >= 7 && body[5] == 0x08 && body[6] == 1) return "";
    return body.size() >= 7 && body[6] == 2 ? "answers NOT_SERVING" : "answers that the state is unknown";
  }

  std::string outcome(CURLcode code) const {
    if (refused) return probe.host + " is an address that is not checked";
    if (code == CURLE_OPERATION_TIMEDOUT) return "no answer within " + std::to_string(probe.timeout_ms) + " ms";
    if (code != CURLE_OK) return error[0] != '\0' ? error : curl_easy_strerror(code);
    if (probe.kind == NetProbe::Kind::kTcp) return "";
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (probe.kind == NetProbe::Kind::kGrpc) {
      return status == 200 ? grpc_outcome() : "HTTP status " + std::to_string(status);
    }
    const auto& expected = probe.expected_codes;
    const bool good = expected.empty() ? status >= 200 && status < 300
                                       : std::ranges::find(expected, static_cast<int32_t>(status)) != expected.end();
    return good ? "" : "HTTP status " + std::to_string(status);
  }
};

class NetProber::Worker {
 public:
  Worker() : multi_(curl_multi_init()), thread_([this] { run(); }) {}
  ~Worker() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    curl_multi_wakeup(multi_);
    thread_.join();
    for (auto& waiting : waiting_) waiting->done("stopped");
    for (auto& [easy, running] : running_) {
      curl_multi_remove_handle(multi_, easy);
      running->done("stopped");
    }
    running_.clear();
    curl_multi_cleanup(multi_);
  }

  void add(std::unique_ptr<Running> probe) {
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(probe));
    }
    curl_multi_wakeup(multi_);
  }

 private:
  void run() {
    while (take_waiting()) {
      int left = 0;
      curl_multi_perform(multi_, &left);
      finish_done();
      curl_multi_poll(multi_, nullptr, 0, 1000, nullptr);
    }
  }
  bool take_waiting() {
    std::deque<std::unique_ptr<Running>> taken;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return false;
      taken.swap(waiting_);
    }
    for (auto& probe : taken) {
      if (!probe->begin() || curl_multi_add_handle(multi_, probe->easy) != CURLM_OK) {
        probe->done("the check could not be started");
        continue;
      }
      CURL* easy = probe->easy;
      running_.emplace(easy, std::move(probe));
    }
    return true;
  }
  void finish_done() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CURL* easy = message->easy_handle;
      auto node = running_.extract(easy);
      curl_multi_remove_handle(multi_, easy);
      if (!node.empty()) node.mapped()->done(node.mapped()->outcome(code));
    }
  }

  CURLM* const multi_;
  std::mutex mutex_;
  std::deque<std::unique_ptr<Running>> waiting_;
  bool stopping_ = false;
  std::map<CURL*, std::unique_ptr<Running>> running_;
  std::thread thread_;
};

NetProber::NetProber() {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  UCCP_CHECK(ready == CURLE_OK, "libcurl starts");
  worker_ = std::make_unique<Worker>();
}
NetProber::~NetProber() = default;

void NetProber::probe(NetProbe probe, Done done) {
  auto running = std::make_unique<Running>();
  running->probe = std::move(probe);
  running->done = std::move(done);
  worker_->add(std::move(running));
}

}  // namespace uccp::runtime
