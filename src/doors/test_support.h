// What the tests and the bench of the doors share: keys, both doors over one pipeline with small handlers, and a raw
// HTTPS client that sends what a well-behaved one would not.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "call/contract.h"
#include "call/pipeline/pipeline.h"
#include "doors/grpc/grpc_door.h"
#include "doors/grpc_client/channel.h"
#include "doors/rest/metrics_door.h"
#include "doors/rest/rest_door.h"
#include "runtime/pki.h"
#include "runtime/real_clock.h"

namespace uccp::doors::testing {

struct Keys {
  runtime::PemIdentity ca, server, client;
  static const Keys& get() {
    static const Keys keys = [] {
      const WallTime now = runtime::RealClock().wall();
      Keys made;
      made.ca = *runtime::create_ca("test", 1, now);
      made.server = *runtime::issue_certificate(made.ca,
                                                {.common_name = "server",
                                                 .dns_names = {"localhost"},
                                                 .ip_addresses = {"127.0.0.1"},
                                                 .use = runtime::CertificateUse::kServer},
                                                now);
      made.client = *runtime::issue_certificate(made.ca, {.common_name = "carol", .organizations = {"viewer"}}, now);
      return made;
    }();
    return keys;
  }
};

// Tokens are "<role>:<name>"; a client certificate is carol, a viewer.
class FakeAuthenticator final : public call::Authenticator {
 public:
  Result<call::Principal> authenticate(const call::Credentials& credentials) override {
    call::Principal principal;
    principal.kind = call::Principal::Kind::kUser;
    principal.tenant = "default";
    const std::string& token = credentials.bearer_token;
    if (token.empty()) {
      UCCP_TRY(const auto info, runtime::inspect_certificate(credentials.certificate_pem));
      principal.name = info.common_name;
      principal.roles = info.organizations;
      return principal;
    }
    const size_t colon = token.find(':');
    if (colon == std::string::npos) return fail(Code::kUnauthenticated, "TOKEN_INVALID", "not a token");
    principal.roles = {token.substr(0, colon)};
    principal.name = token.substr(colon + 1);
    // "admin:root@other" is of another tenant.
    if (const size_t at = principal.name.find('@'); at != std::string::npos) {
      principal.tenant = principal.name.substr(at + 1);
      principal.name.resize(at);
    }
    return principal;
  }
  Status check_again(call::Principal& principal) const override {
    principal.groups.resize(principal.credential_groups);
    return still_good;
  }
  uint64_t revision() const override { return 0; }

  Status still_good;
};

class FakeHealth final : public HealthSource {
 public:
  HealthReport report(std::string_view path) override {
    return {ready ? 200 : 503, "{\"path\":\"" + std::string(path) + "\"}"};
  }
  std::atomic<bool> ready{true};
};

class Doors {
 public:
  call::HandlerTable handlers;
  FakeAuthenticator authenticator;
  runtime::RealClock clock;
  SeededRandom random{7};
  MetricsRegistry metrics;
  FakeHealth health;
  std::vector<call::RateRule> rates;
  call::PipelineOptions limits;
  std::unique_ptr<call::Pipeline> pipeline;
  GrpcDoorOptions grpc_options;
  RestDoorOptions rest_options;
  GrpcDoor grpc;
  RestDoor rest;
  uint16_t grpc_port = 0;
  uint16_t rest_port = 0;

  Doors() {
    const Keys& keys = Keys::get();
    grpc_options.certificate_pem = rest_options.http.certificate_pem = keys.server.certificate_pem;
    grpc_options.key_pem = rest_options.http.key_pem = keys.server.key_pem;
    grpc_options.client_ca_pem = rest_options.http.client_ca_pem = keys.ca.certificate_pem;
  }
  ~Doors() {
    rest.stop(0);
    grpc.stop(0);
  }
  void open() {
    call::PipelineOptions options = limits;
    options.rates = rates;
    pipeline = std::make_unique<call::Pipeline>(handlers, authenticator, clock, random, metrics, options);
    auto port = grpc.start(grpc_options, *pipeline, clock, metrics, [this] { return health.ready.load(); });
    ASSERT_TRUE(port) << port.error().to_string();
    grpc_port = *port;
    auto http_port = rest.start(rest_options, *pipeline, clock, metrics, health);
    ASSERT_TRUE(http_port) << http_port.error().to_string();
    rest_port = *http_port;
  }
  std::unique_ptr<GrpcChannel> channel(const std::string& token = "admin:root") {
    ChannelOptions options;
    options.target = "127.0.0.1:" + std::to_string(grpc_port);
    options.ca_pem = Keys::get().ca.certificate_pem;
    options.bearer_token = token;
    return *GrpcChannel::connect(options);
  }
};

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// A blocking HTTPS connection (plain with `tls` false). A read gives up after 10 s.
class HttpsClient {
 public:
  struct Options {
    bool tls = true;
    bool certificate = false;
    int tls_version_max = TLS1_3_VERSION;
    int receive_buffer = 0;
  };
  HttpsClient(uint16_t port, Options options) {
    ::signal(SIGPIPE, SIG_IGN);
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    if (options.receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &options.receive_buffer, sizeof(int));
    const timeval limit{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    if (!options.tls) return;
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context_, options.tls_version_max);
    if (options.certificate) use_certificate();
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd_);
    connected_ = connected_ && SSL_connect(ssl_) == 1;
  }
  explicit HttpsClient(uint16_t port) : HttpsClient(port, Options{}) {}
  ~HttpsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    if (fd_ >= 0) ::close(fd_);
  }
  HttpsClient(const HttpsClient&) = delete;
  HttpsClient& operator=(const HttpsClient&) = delete;

  bool connected() const { return connected_; }
  bool send(const std::string& text) {
    size_t at = 0;
    while (at < text.size()) {
      const int size = static_cast<int>(std::min<size_t>(text.size() - at, 1 << 20));
      const auto sent =
          ssl_ != nullptr ? SSL_write(ssl_, text.data() + at, size) : ::write(fd_, text.data() + at, size);
      if (sent <= 0) return false;
      at += static_cast<size_t>(sent);
    }
    return true;
  }
  // More bytes into in_; false at the end of the connection.
  bool fill() {
    char space[16384];
    const auto got = ssl_ != nullptr ? SSL_read(ssl_, space, sizeof space) : ::read(fd_, space, sizeof space);
    if (got <= 0) return false;
    in_.append(space, static_cast<size_t>(got));
    return true;
  }
  // Reads until `text` was seen; answers everything up to its end.
  std::string read_until(const std::string& text) {
    while (in_.find(text) == std::string::npos) {
      if (!fill()) return std::exchange(in_, {});
    }
    const size_t end = in_.find(text) + text.size();
    std::string out = in_.substr(0, end);
    in_.erase(0, end);
    return out;
  }
  HttpReply read_head() {
    HttpReply reply;
    const std::string head = read_until("\r\n\r\n");
    if (head.size() < 12) return reply;
    reply.status = std::atoi(head.c_str() + 9);
    for (size_t at = head.find("\r\n") + 2; at < head.size();) {
      const size_t end = head.find("\r\n", at);
      const size_t colon = head.find(": ", at);
      if (colon != std::string::npos && colon < end) {
        std::string name = head.substr(at, colon - at);
        for (char& c : name) c = static_cast<char>(std::tolower(c));
        reply.headers[name] = head.substr(colon + 2, end - colon - 2);
      }
      at = end + 2;
    }
    return reply;
  }
  std::string read_chunk() {
    const std::string size = read_until("\r\n");
    const size_t bytes = std::strtoul(size.c_str(), nullptr, 16);
    while (in_.size() < bytes + 2) {
      if (!fill()) return {};
    }
    std::string chunk = in_.substr(0, bytes);
    in_.erase(0, bytes + 2);
    return chunk;
  }
  HttpReply read_reply(bool has_body = true) {
    HttpReply reply = read_head();
    if (!has_body || reply.status == 0) return reply;
    if (reply.headers["transfer-encoding"] == "chunked") {
      for (std::string chunk = read_chunk(); !chunk.empty(); chunk = read_chunk()) reply.body += chunk;
      return reply;
    }
    const size_t bytes = std::strtoul(reply.headers["content-length"].c_str(), nullptr, 10);
    while (in_.size() < bytes && fill()) {}
    reply.body = in_.substr(0, bytes);
    in_.erase(0, bytes);
    return reply;
  }
  // True if the server closed the connection.
  bool at_end() { return in_.empty() && !fill(); }
  HttpReply ask(const std::string& verb, const std::string& target, const std::string& body = {},
                const std::string& headers = {}, const std::string& token = "admin:root") {
    std::string request = verb + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers;
    if (!token.empty()) request += "Authorization: Bearer " + token + "\r\n";
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    send(request + "\r\n" + body);
    return read_reply(verb != "HEAD");
  }

 private:
  void use_certificate() {
    const Keys& keys = Keys::get();
    BIO* certificate = BIO_new_mem_buf(keys.client.certificate_pem.data(), -1);
    BIO* key = BIO_new_mem_buf(keys.client.key_pem.data(), -1);
    X509* x509 = PEM_read_bio_X509(certificate, nullptr, nullptr, nullptr);
    EVP_PKEY* pkey = PEM_read_bio_PrivateKey(key, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, x509);
    SSL_CTX_use_PrivateKey(context_, pkey);
    X509_free(x509);
    EVP_PKEY_free(pkey);
    BIO_free(certificate);
    BIO_free(key);
  }

  int fd_ = -1;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
  std::string in_;
};

// Waits for a condition that must come true; false after 10 s.
template <typename F>
bool eventually(F condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace uccp::doors::testing
