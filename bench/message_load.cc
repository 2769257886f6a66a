#include "bench/message_load.h"

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

constexpr std::string_view kLineEnd = "\r\n";
constexpr int kWaitMs = 10;
constexpr double kSetUpSeconds = 10;

std::unexpected<Status> failed(const std::string& what) { return fail(Code::kUnavailable, "BENCH_FAILED", what); }

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string_view last_word(std::string_view line) { return line.substr(line.rfind(' ') + 1); }

// A connection with its buffers. Not blocking.
class Link {
 public:
  Link(std::unique_ptr<TlsClient> socket, std::unique_ptr<MessageProtocol> protocol)
      : socket_(std::move(socket)), protocol_(std::move(protocol)) {
    protocol_->begin(out);
  }
  int fd() const { return socket_->fd(); }
  MessageProtocol& protocol() { return *protocol_; }
  bool blocked() const { return at_ < sending_.size(); }

  Status flush() {
    while (true) {
      if (at_ == sending_.size()) {
        sending_.swap(out);
        out.clear();
        at_ = 0;
        if (sending_.empty()) return Status::ok();
      }
      switch (socket_->write(sending_.data(), sending_.size())) {
        case TlsClient::Outcome::kDone: at_ = sending_.size(); break;
        case TlsClient::Outcome::kWouldBlock: return Status::ok();
        case TlsClient::Outcome::kClosed: return failed("a connection was closed").error();
      }
    }
  }

  Status read(const MessageProtocol::Answered& answered, const MessageProtocol::Delivered& delivered) {
    while (true) {
      size_t got = 0;
      switch (socket_->read(buffer_.data(), buffer_.size(), got)) {
        case TlsClient::Outcome::kWouldBlock: return Status::ok();
        case TlsClient::Outcome::kClosed: return failed("a connection was closed").error();
        case TlsClient::Outcome::kDone: break;
      }
      in_.append(buffer_.data(), got);
      UCCP_TRY(const size_t taken, protocol_->take(in_, out, answered, delivered));
      in_.erase(0, taken);
    }
  }

  std::string out;  // to be sent

 private:
  const std::unique_ptr<TlsClient> socket_;
  const std::unique_ptr<MessageProtocol> protocol_;
  std::string sending_, in_;
  size_t at_ = 0;
  std::array<char, 64 << 10> buffer_;
};

class Nats final : public MessageProtocol {
 public:
  explicit Nats(std::string subject) : subject_(std::move(subject)) {}

  void begin(std::string& out) override {
    out +=
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n"
        "SUB _R." +
        inbox_ + ".* 1\r\n";
  }
  void publish(std::string& out, uint64_t id, std::string_view payload) override {
    request(out, subject_, id, payload);
  }
  void request(std::string& out, std::string_view subject, uint64_t id, std::string_view payload) const {
    out.append("PUB ").append(subject).append(" _R.").append(inbox_).append(".").append(std::to_string(id));
    out.append(" ").append(std::to_string(payload.size())).append(kLineEnd).append(payload).append(kLineEnd);
  }

  Result<size_t> take(std::string_view in, std::string& out, const Answered& answered,
                      const Delivered& delivered) override {
    size_t at = 0;
    while (true) {
      const size_t end = in.find(kLineEnd, at);
      if (end == std::string_view::npos) return at;
      const std::string_view line = in.substr(at, end - at);
      size_t next = end + kLineEnd.size();
      if (line.starts_with("-ERR")) return failed("nats: " + std::string(line));
      if (line == "PING") out += "PONG\r\n";
      const bool headers = line.starts_with("HMSG ");
      if (headers || line.starts_with("MSG ")) {
        const size_t bytes = number(last_word(line));
        if (in.size() < next + bytes + kLineEnd.size()) return at;
        take_message(line, in.substr(next, bytes), headers, out, answered, delivered);
        next += bytes + kLineEnd.size();
      }
      at = next;
    }
  }

 private:
  // MSG subject sid [reply] bytes; HMSG subject sid [reply] header-bytes bytes
  void take_message(std::string_view line, std::string_view content, bool headers, std::string& out,
                    const Answered& answered, const Delivered& delivered) const {
    std::vector<std::string_view> words;
    for (size_t at = 0; at < line.size();) {
      const size_t space = std::min(line.find(' ', at), line.size());
      words.push_back(line.substr(at, space - at));
      at = space + 1;
    }
    const std::string_view subject = words[1];
    if (subject.starts_with("_R.")) {
      const uint64_t id = number(subject.substr(subject.rfind('.') + 1));
      // No responders are a message of headers alone.
      return answered(id, !headers && content.find("\"error\"") == std::string_view::npos, content);
    }
    if (!headers) return delivered(content);
    const size_t header_bytes = number(words[words.size() - 2]);
    const bool reply = words.size() == 6;
    const std::string_view header = content.substr(0, header_bytes);
    if (header.starts_with("NATS/1.0 100")) {
      // Flow control wants an answer.
      if (reply) out.append("PUB ").append(words[3]).append(" 0\r\n\r\n");
      return;
    }
    delivered(content.substr(header_bytes));
  }

  static std::string fresh_inbox() {
    static uint64_t count = 0;
    return std::to_string(::getpid()) + "-" + std::to_string(++count);
  }

  const std::string subject_;
  const std::string inbox_ = fresh_inbox();
};

class Redis final : public MessageProtocol {
 public:
  explicit Redis(std::string stream) : stream_(std::move(stream)) {}

  void begin(std::string&) override {}
  void publish(std::string& out, uint64_t id, std::string_view payload) override {
    out += "*5\r\n";
    for (const std::string_view word :
         {std::string_view("XADD"), std::string_view(stream_), std::string_view("*"), std::string_view("d"), payload}) {
      out.append("$").append(std::to_string(word.size())).append(kLineEnd).append(word).append(kLineEnd);
    }
    sent_.push_back(id);
  }

  // Answers come in the order of the requests: "$15\r\n1700000000000-0\r\n".
  Result<size_t> take(std::string_view in, std::string&, const Answered& answered, const Delivered&) override {
    size_t at = 0;
    while (true) {
      const size_t end = in.find(kLineEnd, at);
      if (end == std::string_view::npos) return at;
      const std::string_view line = in.substr(at, end - at);
      if (!line.starts_with("$")) return failed("redis: " + std::string(line));
      const size_t bytes = number(line.substr(1));
      const size_t next = end + kLineEnd.size();
      if (in.size() < next + bytes + kLineEnd.size()) return at;
      answered(sent_.front(), bytes > 0, in.substr(next, bytes));
      sent_.pop_front();
      at = next + bytes + kLineEnd.size();
    }
  }

 private:
  const std::string stream_;
  std::deque<uint64_t> sent_;
};

// One run over a few links, in the caller's thread.
class Run {
 public:
  Run(std::vector<std::unique_ptr<Link>>& links, int epoll, const std::function<std::string(uint64_t)>& payload,
      const Plan& plan)
      : links_(links), epoll_(epoll), payload_(payload), plan_(plan), next_(plan.first_index) {}

  LoadResult go() {
    begin_ = Clock::now();
    const bool counted = plan_.operations > 0;
    from_ = counted ? begin_ : begin_ + seconds(plan_.warm_up_s);
    until_ = counted ? SteadyTime::max() : from_ + seconds(plan_.seconds);
    uint64_t due_count = 0;
    while (error_.is_ok()) {
      const SteadyTime now = Clock::now();
      const bool over = now >= until_ || (counted && next_ - plan_.first_index >= plan_.operations) ||
                        (plan_.stop != nullptr && plan_.stop->load());
      if (over && open_.empty()) break;
      note_window(now);
      if (!over && plan_.rate > 0) {
        for (SteadyTime due;
             (due = begin_ + seconds(static_cast<double>(due_count) / plan_.rate)) <= now && due < until_;
             ++due_count) {
          if (open_.size() < plan_.in_flight) start(due);
          else ++result_.not_sent;
        }
      } else if (!over) {
        while (open_.size() < plan_.in_flight && !(counted && next_ - plan_.first_index >= plan_.operations))
          start(now);
      }
      turn(plan_.rate > 0 && !over ? 0 : kWaitMs);
    }
    note_window(SteadyTime::max());
    if (!error_.is_ok()) {
      result_.failed += open_.size() + 1;
      result_.first_error = error_.message();
    }
    result_.next_index = next_;
    const double wall = std::chrono::duration<double>(Clock::now() - begin_).count();
    result_.seconds = counted ? wall : plan_.seconds;
    return std::move(result_);
  }

 private:
  static std::chrono::nanoseconds seconds(double s) { return std::chrono::nanoseconds(static_cast<int64_t>(s * 1e9)); }

  void note_window(SteadyTime now) {
    if (begin_cpu_ < 0 && now >= from_) {
      window_ = Clock::now();
      begin_cpu_ = own_cpu_seconds();
      begin_server_ = cpu_seconds_of(plan_.server_pids);
    }
    if (!noted_end_ && now >= until_ && begin_cpu_ >= 0) {
      noted_end_ = true;
      const double wall = std::chrono::duration<double>(Clock::now() - window_).count();
      if (wall <= 0) return;
      result_.generator_cores = (own_cpu_seconds() - begin_cpu_) / wall;
      result_.server_cores = (cpu_seconds_of(plan_.server_pids) - begin_server_) / wall;
    }
  }

  void start(SteadyTime due) {
    const uint64_t id = next_++;
    Link& link = *links_[id % links_.size()];
    link.protocol().publish(link.out, id, payload_(id));
    open_.emplace(id, due);
  }

  void turn(int wait_ms) {
    for (const auto& link : links_) {
      if (Status status = link->flush(); !status.is_ok()) error_ = std::move(status);
    }
    std::array<epoll_event, 64> events;
    const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_ms);
    for (int i = 0; i < count; ++i) {
      Status status = links_[events[static_cast<size_t>(i)].data.u64]->read(
          [this](uint64_t id, bool ok, std::string_view answer) { answered(id, ok, answer); }, [](std::string_view) {});
      if (!status.is_ok()) error_ = std::move(status);
    }
  }

  void answered(uint64_t id, bool ok, std::string_view answer) {
    const auto open = open_.extract(id);
    if (open.empty()) return;
    const SteadyTime now = Clock::now();
    const SteadyTime when = plan_.rate > 0 ? open.mapped() : now;
    const bool measured = when >= from_ && when < until_;
    if (!ok) {
      if (result_.first_error.empty()) result_.first_error = answer;
      result_.failed += measured ? 1 : 0;
      return;
    }
    ++result_.all_ok;
    if (!measured) return;
    ++result_.ok;
    result_.latency.record(std::chrono::nanoseconds(now - open.mapped()).count());
  }

  std::vector<std::unique_ptr<Link>>& links_;
  const int epoll_;
  const std::function<std::string(uint64_t)>& payload_;
  const Plan& plan_;
  uint64_t next_;
  std::unordered_map<uint64_t, SteadyTime> open_;
  SteadyTime begin_, from_, until_, window_;
  double begin_cpu_ = -1, begin_server_ = 0;
  bool noted_end_ = false;
  Status error_;
  LoadResult result_;
};

class Load final : public MessageLoad {
 public:
  Load(SslContext context, std::vector<std::unique_ptr<Link>> links)
      : context_(std::move(context)), links_(std::move(links)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (size_t i = 0; i < links_.size(); ++i) {
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, links_[i]->fd(), &event);
    }
  }
  ~Load() override { ::close(epoll_); }
  LoadResult run(const std::function<std::string(uint64_t)>& payload, const Plan& plan) override {
    return Run(links_, epoll_, payload, plan).go();
  }

 private:
  const SslContext context_;
  std::vector<std::unique_ptr<Link>> links_;
  const int epoll_;
};

// Works with one link until `done`.
Status drive(Link& link, const MessageProtocol::Answered& answered, const MessageProtocol::Delivered& delivered,
             const std::function<bool()>& done) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, link.fd(), &event);
  Status status;
  while (status.is_ok() && !done()) {
    status = link.flush();
    epoll_event got{};
    if (status.is_ok() && ::epoll_wait(epoll, &got, 1, kWaitMs) > 0) status = link.read(answered, delivered);
  }
  ::close(epoll);
  return status;
}

}  // namespace

std::unique_ptr<MessageProtocol> nats_protocol(const std::string& subject) { return std::make_unique<Nats>(subject); }
std::unique_ptr<MessageProtocol> redis_protocol(const std::string& stream) { return std::make_unique<Redis>(stream); }

Result<std::unique_ptr<MessageLoad>> MessageLoad::connect(const std::vector<std::string>& targets,
                                                          const TlsIdentity& tls, const MakeProtocol& protocol,
                                                          int connections) {
  UCCP_TRY(SslContext context, make_client_context(tls, ""));
  std::vector<std::unique_ptr<Link>> links;
  for (int i = 0; i < connections; ++i) {
    UCCP_TRY(auto socket,
             TlsClient::connect(*context, targets[static_cast<size_t>(i) % targets.size()], kSetUpSeconds));
    links.push_back(std::make_unique<Link>(std::move(socket), protocol()));
  }
  return std::make_unique<Load>(std::move(context), std::move(links));
}

Result<std::string> nats_request(const std::string& target, const TlsIdentity& tls, const std::string& subject,
                                 const std::string& body) {
  UCCP_TRY(const SslContext context, make_client_context(tls, ""));
  UCCP_TRY(auto socket, TlsClient::connect(*context, target, kSetUpSeconds));
  Link link(std::move(socket), nats_protocol(subject));
  link.protocol().publish(link.out, 1, body);
  std::string reply;
  bool answered = false, good = false;
  const auto until = Clock::now() + std::chrono::seconds(10);
  UCCP_RETURN_IF_ERROR(drive(
      link,
      [&](uint64_t, bool ok, std::string_view answer) {
        answered = true;
        good = ok;
        reply = answer;
      },
      [](std::string_view) {}, [&] { return answered || Clock::now() > until; }));
  if (!good) return failed(subject + " answers " + (reply.empty() ? "nothing" : reply));
  return reply;
}

Status nats_consume(const std::string& target, const TlsIdentity& tls, const std::string& stream, bool from_start,
                    const std::function<bool(std::string_view payload)>& take, const std::function<void()>& ready) {
  UCCP_TRY(const SslContext context, make_client_context(tls, ""));
  UCCP_TRY(auto socket, TlsClient::connect(*context, target, kSetUpSeconds));
  Link link(std::move(socket), nats_protocol("$JS.API.CONSUMER.CREATE." + stream));
  const std::string subject = "deliver." + std::to_string(::getpid()) + "." + std::to_string(link.fd());
  link.out += "SUB " + subject + " 2\r\n";
  link.protocol().publish(
      link.out, 1,
      "{\"stream_name\":\"" + stream + "\",\"config\":{\"deliver_subject\":\"" + subject + "\",\"deliver_policy\":\"" +
          (from_start ? "all" : "new") +
          "\",\"ack_policy\":\"none\",\"max_deliver\":1,\"flow_control\":true,\"idle_heartbeat\":5000000000,"
          "\"num_replicas\":1,\"mem_storage\":true}}");
  bool more = true;
  Status refused;
  UCCP_RETURN_IF_ERROR(drive(
      link,
      [&](uint64_t, bool ok, std::string_view answer) {
        if (!ok) refused = failed("no consumer: " + std::string(answer)).error();
        else if (ready) ready();
      },
      [&](std::string_view payload) { more = more && take(payload); }, [&] { return !more || !refused.is_ok(); }));
  return refused;
}

}  // namespace uccp::bench
