#include "bench/rest_load.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <vector>

#include "bench/tls_client.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;
struct Connection {
  std::unique_ptr<TlsClient> socket;
  std::string in;
  size_t body_at = 0;  // 0: the head is not complete
  size_t body_bytes = 0;
  bool right_status = false;
  uint64_t index = 0;
  SteadyTime due;
};

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
         });
}

// Reads the head at the beginning of `connection.in` if it is complete.
void read_head(Connection& connection) {
  const std::string_view in = connection.in;
  const size_t end = in.find("\r\n\r\n");
  if (end == std::string_view::npos) return;
  connection.right_status = in.starts_with("HTTP/1.1 200 ");
  connection.body_bytes = 0;
  for (size_t at = in.find("\r\n"); at < end;) {
    const size_t line_end = in.find("\r\n", at + 2);
    const std::string_view line = in.substr(at + 2, line_end - at - 2);
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && same_ignoring_case(line.substr(0, colon), "content-length")) {
      const std::string_view value = line.substr(line.find_first_not_of(' ', colon + 1));
      std::from_chars(value.data(), value.data() + value.size(), connection.body_bytes);
    }
    at = line_end;
  }
  connection.body_at = end + 4;
}

class Load final : public RestLoad {
 public:
  explicit Load(SslContext context) : context_(std::move(context)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
  ~Load() override { ::close(epoll_); }

  Status open(const std::string& target, int count) {
    connections_.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      Connection connection;
      UCCP_TRY(connection.socket, TlsClient::connect(*context_, target, 10));
      epoll_event event{.events = EPOLLIN, .data = {.u64 = static_cast<uint64_t>(i)}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.socket->fd(), &event);
      connections_.push_back(std::move(connection));
    }
    return Status::ok();
  }

  LoadResult run(const Work& work, const Plan& plan) override {
    work_ = &work;
    plan_ = &plan;
    result_ = {};
    next_ = plan.first_index;
    free_.clear();
    for (size_t i = 0; i < connections_.size(); ++i) free_.push_back(i);
    begin_ = Clock::now();
    from_ = begin_ + seconds_of(plan.warm_up_s);
    until_ = from_ + seconds_of(plan.seconds);
    const double own = own_cpu_seconds(), server = cpu_seconds_of(plan.server_pids);
    uint64_t due_count = 0;
    while (broken_.empty()) {
      const SteadyTime now = Clock::now();
      SteadyTime next_due = until_;
      if (now < until_) {
        next_due = plan.rate > 0 ? start_due(now, due_count) : start_free(now);
      } else if (free_.size() == connections_.size()) {
        break;
      }
      wait(now < until_ ? next_due - now : std::chrono::milliseconds(100));
    }
    const double wall = std::chrono::duration<double>(Clock::now() - begin_).count();
    result_.generator_cores = (own_cpu_seconds() - own) / wall;
    result_.server_cores = (cpu_seconds_of(plan.server_pids) - server) / wall;
    result_.seconds = plan.seconds;
    result_.next_index = next_;
    if (result_.first_error.empty()) result_.first_error = broken_;
    if (!broken_.empty()) ++result_.failed;
    return std::move(result_);
  }

 private:
  static std::chrono::nanoseconds seconds_of(double seconds) {
    return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
  }

  SteadyTime start_free(SteadyTime now) {
    while (!free_.empty()) send(now);
    return until_;
  }

  // Starts what is due as far as connections are free; returns when the next one is due.
  SteadyTime start_due(SteadyTime now, uint64_t& due_count) {
    while (true) {
      const SteadyTime due = begin_ + seconds_of(static_cast<double>(due_count) / plan_->rate);
      if (due > now) return due;
      if (free_.empty()) return until_;  // an answer wakes us
      send(due);
      ++due_count;
    }
  }

  void send(SteadyTime due) {
    Connection& connection = connections_[free_.front()];
    free_.pop_front();
    connection.index = next_++;
    connection.due = due;
    connection.in.clear();
    connection.body_at = 0;
    const std::string request = work_->request(connection.index);
    // A request of some hundred bytes always fits into the socket's buffer of an idle connection.
    if (connection.socket->write(request.data(), request.size()) != TlsClient::Outcome::kDone) {
      broken_ = "a connection did not take a request";
    }
  }

  void wait(std::chrono::nanoseconds limit) {
    std::array<epoll_event, 64> events;
    timespec timeout{limit.count() / 1'000'000'000, limit.count() % 1'000'000'000};
    if (limit.count() < 0) timeout = {};
    const int count = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    for (int i = 0; i < count; ++i) receive(events[static_cast<size_t>(i)].data.u64);
  }

  void receive(size_t at) {
    Connection& connection = connections_[at];
    std::array<char, 16384> buffer;
    while (true) {
      size_t got = 0;
      const TlsClient::Outcome outcome = connection.socket->read(buffer.data(), buffer.size(), got);
      if (outcome == TlsClient::Outcome::kClosed) broken_ = "the server closed a connection";
      if (outcome != TlsClient::Outcome::kDone) return;
      connection.in.append(buffer.data(), got);
      if (connection.body_at == 0) read_head(connection);
      if (connection.body_at == 0 || connection.in.size() < connection.body_at + connection.body_bytes) continue;
      answered(connection);
      free_.push_back(at);
      if (plan_->rate == 0 && Clock::now() < until_) send(Clock::now());
      return;
    }
  }

  void answered(Connection& connection) {
    const SteadyTime now = Clock::now();
    const std::string_view body = std::string_view(connection.in).substr(connection.body_at, connection.body_bytes);
    const bool right = connection.right_status && work_->verify(connection.index, body);
    if (!right && result_.first_error.empty()) result_.first_error = connection.in.substr(0, 300);
    const SteadyTime when = plan_->rate > 0 ? connection.due : now;
    if (right) ++result_.all_ok;
    if (when < from_ || when >= until_) return;
    if (!right) {
      ++result_.failed;
      return;
    }
    ++result_.ok;
    result_.latency.record(std::chrono::nanoseconds(now - connection.due).count());
  }

  SslContext context_;
  const int epoll_;
  std::vector<Connection> connections_;
  std::deque<size_t> free_;
  const Work* work_ = nullptr;
  const Plan* plan_ = nullptr;
  SteadyTime begin_, from_, until_;
  uint64_t next_ = 0;
  std::string broken_;
  LoadResult result_;
};

}  // namespace

Result<std::unique_ptr<RestLoad>> RestLoad::connect(const std::string& target, const TlsIdentity& tls,
                                                    int connections) {
  UCCP_TRY(SslContext context, make_client_context(tls, ""));
  auto load = std::make_unique<Load>(std::move(context));
  UCCP_RETURN_IF_ERROR(load->open(target, connections));
  return std::unique_ptr<RestLoad>(std::move(load));
}

}  // namespace uccp::bench
