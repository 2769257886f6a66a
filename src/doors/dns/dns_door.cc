#include "doors/dns/dns_door.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "call/contract.h"

namespace uccp::doors {
namespace {

constexpr size_t kDatagramBytesMax = 4096;
constexpr size_t kDatagramsATurn = 64;

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::string text() const {
    char host[INET6_ADDRSTRLEN] = "?";
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    const bool six = storage.ss_family == AF_INET6;
    inet_ntop(storage.ss_family, six ? static_cast<const void*>(&v6->sin6_addr) : &v4->sin_addr, host, sizeof host);
    const uint16_t port = ntohs(six ? v6->sin6_port : v4->sin_port);
    return (six ? "[" + std::string(host) + "]" : host) + ":" + std::to_string(port);
  }
};

Status listen_failed(const std::string& host, uint16_t port, const std::string& why) {
  return Status(Code::kUnavailable, "LISTEN_FAILED",
                "the DNS door cannot listen on " + host + ":" + std::to_string(port) + ": " + why);
}

Result<Address> address_of(const std::string& host, uint16_t port) {
  Address a;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&a.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&a.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    a.size = sizeof *v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    a.size = sizeof *v6;
  } else {
    return fail(listen_failed(host, port, "dns_host is no IP address"));
  }
  return a;
}

Result<Fd> bound(const Address& address, int type, const std::string& host, uint16_t port) {
  Fd fd(socket(address.storage.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (fd.get() < 0) return fail(listen_failed(host, port, std::strerror(errno)));
  if (type == SOCK_STREAM) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      (type == SOCK_STREAM && ::listen(fd.get(), 128) != 0)) {
    return fail(listen_failed(host, port, std::strerror(errno)));
  }
  return fd;
}

uint16_t port_of(int fd) {
  Address a;
  a.size = sizeof a.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&a.storage), &a.size);
  return ntohs(a.storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&a.storage)->sin6_port
                                               : reinterpret_cast<sockaddr_in*>(&a.storage)->sin_port);
}

}  // namespace

class DnsDoor::Server : public std::enable_shared_from_this<DnsDoor::Server> {
 public:
  Server(DnsDoorOptions options, call::Pipeline& pipeline, const Clock& clock, MetricsRegistry& metrics)
      : options_(std::move(options)),
        pipeline_(pipeline),
        clock_(clock),
        answered_(metrics.counter("uccp_dns_queries_total", "DNS queries", {{"outcome", "answered"}})),
        nothing_(metrics.counter("uccp_dns_queries_total", "DNS queries", {{"outcome", "nothing"}})),
        refused_(metrics.counter("uccp_dns_queries_total", "DNS queries", {{"outcome", "refused"}})),
        failed_(metrics.counter("uccp_dns_queries_total", "DNS queries", {{"outcome", "failed"}})),
        dropped_(metrics.counter("uccp_dns_queries_total", "DNS queries", {{"outcome", "dropped"}})) {}

  Result<uint16_t> open() {
    // TCP gets the port that UDP got; where that is taken another one is tried, unless the port was named.
    for (int attempt = 0;; ++attempt) {
      UCCP_TRY(const Address any, address_of(options_.host, options_.port));
      UCCP_TRY(udp_, bound(any, SOCK_DGRAM, options_.host, options_.port));
      const uint16_t port = port_of(udp_.get());
      UCCP_TRY(const Address same, address_of(options_.host, port));
      auto tcp = bound(same, SOCK_STREAM, options_.host, port);
      if (tcp) {
        tcp_ = std::move(*tcp);
        wake_ = Fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        thread_ = std::thread([this] { run(); });
        return port;
      }
      if (options_.port != 0 || attempt == 16) return std::unexpected(std::move(tcp.error()));
    }
  }

  void close() {
    stopping_.store(true);
    ring();
    if (thread_.joinable()) thread_.join();
  }

 private:
  // Where an answer goes.
  struct Client {
    uint64_t connection = 0;  // 0: UDP
    Address address;
  };
  struct Connection {
    Fd fd;
    Address address;
    std::string in, out;
    size_t pending = 0;  // queries whose answers are not written yet
    BootTime used;
  };
  struct Finished {
    Client client;
    std::string packet;
  };
  class Answering;

  void ring() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  }

  void run() {
    while (!stopping_.load()) {
      std::vector<pollfd> polled{{wake_.get(), POLLIN, 0}, {udp_.get(), POLLIN, 0}, {tcp_.get(), POLLIN, 0}};
      std::vector<uint64_t> ids;
      for (auto& [id, c] : connections_) {
        // Backpressure: a client that takes no answers is asked nothing more.
        const bool read = c.out.size() < kDnsTcpBytesMax && c.pending < 64;
        polled.push_back({c.fd.get(), static_cast<short>((read ? POLLIN : 0) | (c.out.empty() ? 0 : POLLOUT)), 0});
        ids.push_back(id);
      }
      ::poll(polled.data(), polled.size(), 1000);
      if ((polled[0].revents & POLLIN) != 0) take_finished();
      if ((polled[1].revents & POLLIN) != 0) read_datagrams();
      for (size_t i = 0; i < ids.size(); ++i) serve(ids[i], polled[i + 3].revents);
      if ((polled[2].revents & POLLIN) != 0) accept_connections();
      close_idle();
    }
    connections_.clear();
  }

  // --- UDP ---

  void read_datagrams() {
    char packet[kDatagramBytesMax];
    for (size_t i = 0; i < kDatagramsATurn; ++i) {
      Client client;
      client.address.size = sizeof client.address.storage;
      const ssize_t size = ::recvfrom(udp_.get(), packet, sizeof packet, 0,
                                      reinterpret_cast<sockaddr*>(&client.address.storage), &client.address.size);
      if (size < 0) return;
      ask(client, {packet, static_cast<size_t>(size)});
    }
  }

  // --- TCP ---

  void accept_connections() {
    while (true) {
      Address address;
      address.size = sizeof address.storage;
      Fd fd(::accept4(tcp_.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.size,
                      SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd.get() < 0) return;
      if (connections_.size() >= kDnsConnectionsMax) {
        const auto oldest = std::ranges::min_element(connections_, {}, [](const auto& c) { return c.second.used.us; });
        connections_.erase(oldest);
      }
      connections_.emplace(++last_id_, Connection{std::move(fd), address, {}, {}, 0, clock_.boot()});
    }
  }

  void serve(uint64_t id, short events) {
    const auto it = connections_.find(id);
    if (it == connections_.end() || events == 0) return;
    Connection& c = it->second;
    c.used = clock_.boot();
    if (!c.out.empty()) {
      const ssize_t sent = ::send(c.fd.get(), c.out.data(), c.out.size(), MSG_NOSIGNAL);
      if (sent > 0) c.out.erase(0, static_cast<size_t>(sent));
      else if (sent < 0 && errno != EAGAIN) return static_cast<void>(connections_.erase(it));
    }
    if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
    char bytes[kDatagramBytesMax];
    const ssize_t got = ::recv(c.fd.get(), bytes, sizeof bytes, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return static_cast<void>(connections_.erase(it));
    if (got > 0) c.in.append(bytes, static_cast<size_t>(got));
    while (c.in.size() >= 2) {
      const size_t size = static_cast<size_t>(static_cast<uint8_t>(c.in[0])) << 8 | static_cast<uint8_t>(c.in[1]);
      if (c.in.size() < size + 2) break;
      const std::string packet = c.in.substr(2, size);
      c.in.erase(0, size + 2);
      ++c.pending;
      ask({id, c.address}, packet);
    }
  }

  void close_idle() {
    const BootTime now = clock_.boot();
    std::erase_if(connections_,
                  [&](const auto& c) { return c.second.pending == 0 && now.ms_since(c.second.used) > kDnsIdleMs; });
  }

  // --- questions and answers ---

  void ask(const Client& client, std::string_view packet) {
    auto query = read_query(packet);
    if (!query) {
      dropped_.add();
      if (client.connection != 0) connections_.erase(client.connection);
      return;
    }
    if (query->refusal) return refuse(client, *query, *query->refusal);
    const DnsLookupResult read = read_lookup(options_.zone, query->name);
    if (!read.lookup && read.code == DnsCode::kRefused) return refuse(client, *query, static_cast<uint8_t>(read.code));
    if (!read.lookup) return answer(client, *query, answer_nothing(options_.zone, *query, read.code));
    if (read.lookup->kind == DnsLookup::Kind::kZone) {
      return answer(client, *query, answer_nothing(options_.zone, *query, DnsCode::kNoError));
    }
    if (read.lookup->kind == DnsLookup::Kind::kAddress) {
      return answer(client, *query, answer_address(options_.zone, *query, *read.lookup));
    }
    if (at_work_ >= kDnsQueriesMax) return refuse(client, *query, static_cast<uint8_t>(DnsCode::kServerFailure));
    discover(client, *query, *read.lookup);
  }

  void discover(const Client& client, const DnsQuery& query, const DnsLookup& lookup);

  void answer(const Client& client, const DnsQuery& query, const DnsAnswer& answer) {
    (answer.code == DnsCode::kNoError && !answer.answers.empty() ? answered_ : nothing_).add();
    deliver(client, packet_for(client, query, answer));
  }
  void refuse(const Client& client, const DnsQuery& query, uint8_t code) {
    (code == static_cast<uint8_t>(DnsCode::kServerFailure) ? failed_ : refused_).add();
    deliver(client, write_refusal(query, code));
  }
  static std::string packet_for(const Client& client, const DnsQuery& query, const DnsAnswer& answer) {
    return write_answer(query, answer, client.connection != 0 ? kDnsTcpBytesMax : query.udp_bytes_max);
  }

  void deliver(const Client& client, const std::string& packet) {
    if (client.connection == 0) {
      ::sendto(udp_.get(), packet.data(), packet.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&client.address.storage), client.address.size);
      return;
    }
    const auto it = connections_.find(client.connection);
    if (it == connections_.end()) return;
    --it->second.pending;
    it->second.out += static_cast<char>(packet.size() >> 8);
    it->second.out += static_cast<char>(packet.size());
    it->second.out += packet;
  }

  // From any thread.
  void finished(Client client, std::string packet) {
    {
      std::lock_guard lock(mutex_);
      finished_.push_back({std::move(client), std::move(packet)});
    }
    ring();
  }
  void take_finished() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
    std::deque<Finished> taken;
    {
      std::lock_guard lock(mutex_);
      taken.swap(finished_);
    }
    for (const Finished& f : taken) {
      --at_work_;
      deliver(f.client, f.packet);
    }
  }

  const DnsDoorOptions options_;
  call::Pipeline& pipeline_;
  const Clock& clock_;
  Counter &answered_, &nothing_, &refused_, &failed_, &dropped_;
  Fd udp_, tcp_, wake_;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;
  std::map<uint64_t, Connection> connections_;
  uint64_t last_id_ = 0;
  size_t at_work_ = 0;
  std::mutex mutex_;
  std::deque<Finished> finished_;
};

// The sink of one Discover call.
class DnsDoor::Server::Answering final : public call::Sink {
 public:
  Answering(std::shared_ptr<Server> server, Client client, DnsQuery query, DnsLookup lookup)
      : server_(std::move(server)), client_(std::move(client)), query_(std::move(query)), lookup_(std::move(lookup)) {}
  void send(std::string message) override { message_ = std::move(message); }
  void finish(Status status) override {
    v1::DiscoverResponse found;
    if (status.is_ok() && found.ParseFromString(message_)) {
      const DnsAnswer answer = answer_service(server_->options_.zone, query_, lookup_, found);
      (answer.code == DnsCode::kNoError && !answer.answers.empty() ? server_->answered_ : server_->nothing_).add();
      return server_->finished(client_, packet_for(client_, query_, answer));
    }
    // A selector that is none is a name that does not exist; a namespace that must not be seen is refused.
    const DnsCode code = status.code() == Code::kPermission ? DnsCode::kRefused : DnsCode::kServerFailure;
    if (status.code() == Code::kInvalid) {
      server_->nothing_.add();
      const DnsAnswer answer = answer_nothing(server_->options_.zone, query_, DnsCode::kNoName);
      return server_->finished(client_, packet_for(client_, query_, answer));
    }
    (code == DnsCode::kRefused ? server_->refused_ : server_->failed_).add();
    server_->finished(client_, write_refusal(query_, static_cast<uint8_t>(code)));
  }
  size_t queued_bytes() const override { return 0; }

 private:
  const std::shared_ptr<Server> server_;
  const Client client_;
  const DnsQuery query_;
  const DnsLookup lookup_;
  std::string message_;
};

void DnsDoor::Server::discover(const Client& client, const DnsQuery& query, const DnsLookup& lookup) {
  static constexpr std::string_view kMethod = "uccp.v1.ServiceDiscovery/Discover";
  ++at_work_;
  auto made = std::make_shared<call::Call>();
  made->method = call::Contract::get().find(kMethod);
  made->credentials = options_.credentials();
  made->credentials.address = client.address.text();
  made->deadline = clock_.boot().plus_ms(kDnsAnswerMs);
  made->sink = std::make_shared<Answering>(shared_from_this(), client, query, lookup);
  pipeline_.dispatch(made, lookup.request.SerializeAsString(), kMethod);
}

DnsDoor::DnsDoor() = default;
DnsDoor::~DnsDoor() { stop(); }

Result<uint16_t> DnsDoor::start(DnsDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                                MetricsRegistry& metrics) {
  server_ = std::make_shared<Server>(std::move(options), pipeline, clock, metrics);
  return server_->open();
}

void DnsDoor::stop() {
  if (server_) server_->close();
}

}  // namespace uccp::doors
