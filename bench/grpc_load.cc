#include "bench/grpc_load.h"

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <deque>
#include <thread>
#include <unordered_map>
#include <vector>

#include "bench/tls_client.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kOk = 0, kDeadlineExceeded = 4, kNotFound = 5, kResourceExhausted = 8, kUnavailable = 14;
constexpr size_t kPrefixBytes = 5;
constexpr int32_t kWindowBytes = 16 << 20;
constexpr size_t kWriteBytes = 16 << 10;

std::chrono::nanoseconds ns_of(double seconds) { return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)); }

struct Operation {
  uint64_t index = 0;
  SteadyTime due;
  std::string request;  // with gRPC's prefix
  size_t sent = 0;
  std::string reply;
  int status = kUnavailable;
  std::string message = "the connection or the stream ended without a status";

  std::string_view answer() const {
    return reply.size() < kPrefixBytes ? std::string_view() : std::string_view(reply).substr(kPrefixBytes);
  }
};

std::string framed(std::string_view message) {
  std::string out(kPrefixBytes, '\0');
  for (int i = 0; i < 4; ++i) out[1 + static_cast<size_t>(i)] = static_cast<char>(message.size() >> (24 - 8 * i));
  out += message;
  return out;
}

// What is the same for all calls of a run.
struct CallHeaders {
  CallHeaders(const Work& work, const Plan& plan)
      : path("/" + work.method), timeout(std::to_string(plan.deadline_ms) + "m"), consistency(work.consistency) {
    add(":method", "POST");
    add(":scheme", "https");
    add(":path", path);
    add(":authority", "localhost");
    add("te", "trailers");
    add("content-type", "application/grpc");
    add("grpc-timeout", timeout);
    if (!consistency.empty()) add("uccp-consistency", consistency);
  }
  CallHeaders(const CallHeaders&) = delete;
  CallHeaders& operator=(const CallHeaders&) = delete;

  const std::string path, timeout, consistency;
  std::vector<nghttp2_nv> fields;

 private:
  static uint8_t* bytes(std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));  // nghttp2 does not write to it
  }
  void add(std::string_view name, std::string_view value) {
    fields.push_back({bytes(name), bytes(value), name.size(), value.size(),
                      NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE});
  }
};

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

  void start(const CallHeaders& headers, std::unique_ptr<Operation> operation, SteadyTime deadline) {
    Operation* call = operation.get();
    nghttp2_data_provider body{{.ptr = call}, next_bytes};
    const int32_t stream = closed_ ? -1
                                   : nghttp2_submit_request(session_, nullptr, headers.fields.data(),
                                                            headers.fields.size(), &body, call);
    if (stream < 0) {
      ended.push_back(std::move(operation));
      return;
    }
    open_.emplace(stream, std::move(operation));
    deadlines_.emplace_back(deadline, stream);
  }

  // Ends the calls whose time is over.
  void expire(SteadyTime now) {
    while (!deadlines_.empty()) {
      const auto [deadline, stream] = deadlines_.front();
      const auto call = open_.find(stream);
      if (call != open_.end()) {
        if (deadline > now) return;
        call->second->status = kDeadlineExceeded;
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

  std::vector<std::unique_ptr<Operation>> ended;

 private:
  void close() {
    closed_ = true;
    out_.clear();
    out_at_ = 0;
    for (auto& [stream, call] : open_) ended.push_back(std::move(call));
    open_.clear();
    deadlines_.clear();
  }

  static Operation* call_of(nghttp2_session* session, int32_t stream) {
    return static_cast<Operation*>(nghttp2_session_get_stream_user_data(session, stream));
  }

  static ssize_t next_bytes(nghttp2_session*, int32_t, uint8_t* out, size_t room, uint32_t* flags,
                            nghttp2_data_source* source, void*) {
    auto& call = *static_cast<Operation*>(source->ptr);
    const size_t bytes = std::min(room, call.request.size() - call.sent);
    std::copy_n(call.request.data() + call.sent, bytes, reinterpret_cast<char*>(out));
    call.sent += bytes;
    if (call.sent == call.request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(bytes);
  }

  static int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t, void*) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_bytes);
    if (!key.starts_with("grpc-")) return 0;
    Operation* call = call_of(session, frame->hd.stream_id);
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
    if (Operation* call = call_of(session, stream)) call->reply.append(reinterpret_cast<const char*>(data), bytes);
    return 0;
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
  std::unordered_map<int32_t, std::unique_ptr<Operation>> open_;
  std::deque<std::pair<SteadyTime, int32_t>> deadlines_;  // in order, as all calls of a run have the same time
  std::array<char, 64 << 10> buffer_;
  std::string out_;
  size_t out_at_ = 0;
  bool closed_ = false;
};

using Connections = std::vector<std::unique_ptr<Connection>>;

// One run, in the caller's thread.
class Run {
 public:
  Run(int epoll, Connections& connections, const Work& work, const Plan& plan)
      : epoll_(epoll), connections_(connections), work_(work), plan_(plan), headers_(work, plan),
        next_index_(plan.first_index) {}

  LoadResult go() {
    begin_ = Clock::now();
    const bool counted = plan_.operations > 0;
    from_ = counted ? begin_ : begin_ + ns_of(plan_.warm_up_s);
    until_ = counted ? SteadyTime::max() : from_ + ns_of(plan_.seconds);
    if (plan_.rate > 0) open_loop();
    else closed_loop();
    if (window_end_cpu_ < 0) note_window_end();
    result_.next_index = next_index_;
    result_.seconds = counted ? std::chrono::duration<double>(last_answer_ - begin_).count() : plan_.seconds;
    const double wall = std::chrono::duration<double>(window_end_ - window_begin_).count();
    if (wall > 0) {
      result_.generator_cores = (window_end_cpu_ - window_begin_cpu_) / wall;
      result_.server_cores = (window_end_server_ - window_begin_server_) / wall;
    }
    return std::move(result_);
  }

 private:
  bool exhausted() const { return plan_.operations > 0 && next_index_ - plan_.first_index >= plan_.operations; }

  void start(SteadyTime due) {
    auto operation = std::make_unique<Operation>();
    operation->index = next_index_++;
    operation->due = due;
    operation->request = framed(work_.request(operation->index));
    ++open_;
    connections_[operation->index % connections_.size()]->start(
        headers_, std::move(operation), Clock::now() + std::chrono::milliseconds(plan_.deadline_ms));
  }

  void note_window_begin() {
    window_begin_ = Clock::now();
    window_begin_cpu_ = own_cpu_seconds();
    window_begin_server_ = cpu_seconds_of(plan_.server_pids);
  }
  void note_window_end() {
    window_end_ = Clock::now();
    window_end_cpu_ = own_cpu_seconds();
    window_end_server_ = cpu_seconds_of(plan_.server_pids);
  }

  void finish(const Operation& operation, SteadyTime now) {
    --open_;
    last_answer_ = now;
    if (window_begin_cpu_ < 0 && now >= from_) note_window_begin();
    if (window_end_cpu_ < 0 && now >= until_) note_window_end();
    // An open loop counts the calls that were due in the window, a closed one those that were answered in it.
    const SteadyTime when = plan_.rate > 0 ? operation.due : now;
    const bool measured = when >= from_ && when < until_;
    if (operation.status == kOk && work_.verify(operation.index, operation.answer())) {
      ++result_.all_ok;
      if (!measured) return;
      ++result_.ok;
      result_.latency.record(std::chrono::nanoseconds(now - operation.due).count());
      return;
    }
    const bool shed = operation.status == kResourceExhausted || operation.status == kUnavailable;
    if (shed && result_.first_shed.empty()) result_.first_shed = operation.message;
    if (result_.first_error.empty() && !shed && operation.status != kDeadlineExceeded) {
      result_.first_error = operation.status == kOk
                                ? "the answer of call " + std::to_string(operation.index) + " is wrong"
                                : operation.message;
    }
    if (!measured) return;
    if (shed) ++result_.shed;
    else if (operation.status == kDeadlineExceeded) ++result_.expired;
    else ++result_.failed;
    if (operation.status == kNotFound) ++result_.not_found;
  }

  // Sends what was started, waits for answers at most until `limit`, and takes them. Returns how many calls ended.
  size_t turn(SteadyTime limit) {
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i]->flush();
      watch(i);
    }
    SteadyTime now = Clock::now();
    bool waiting = true;
    for (const auto& connection : connections_) waiting = waiting && connection->ended.empty();
    // Deadlines are looked at this often.
    const auto wait = std::min<std::chrono::nanoseconds>(limit - now, std::chrono::milliseconds(10));
    timespec timeout{0, waiting && wait.count() > 0 ? wait.count() : 0};
    std::array<epoll_event, 64> events;
    const int count = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      Connection& connection = *connections_[events[static_cast<size_t>(i)].data.u64];
      connection.read();
      if (connection.closed()) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, connection.fd(), nullptr);
    }
    size_t ended = 0;
    now = Clock::now();
    for (const auto& connection : connections_) {
      connection->expire(now);
      for (const auto& operation : connection->ended) finish(*operation, now);
      ended += connection->ended.size();
      connection->ended.clear();
    }
    return ended;
  }

  void watch(size_t at) {
    Connection& connection = *connections_[at];
    const bool writable = connection.blocked();
    if (connection.closed() || writable == blocked_[at]) return;
    blocked_[at] = writable;
    epoll_event event{.events = EPOLLIN | (writable ? uint32_t{EPOLLOUT} : 0), .data = {.u64 = at}};
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd(), &event);
  }

  void closed_loop() {
    size_t wanted = plan_.in_flight;
    while (true) {
      const SteadyTime now = Clock::now();
      const bool more = now < until_;
      for (; more && wanted > 0 && !exhausted(); --wanted) start(now);
      if (open_ == 0) return;
      wanted = turn(SteadyTime::max());
      // A closed connection answers at once.
      if (wanted > 0 && all_closed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  bool all_closed() const {
    for (const auto& connection : connections_) {
      if (!connection->closed()) return false;
    }
    return true;
  }

  void open_loop() {
    uint64_t due_count = 0;
    SteadyTime due = begin_;
    while (due < until_ && !(plan_.stop != nullptr && plan_.stop->load())) {
      for (SteadyTime now = Clock::now(); due <= now && due < until_; now = Clock::now()) {
        const bool late = plan_.late_ms_max > 0 && now - due > std::chrono::milliseconds(plan_.late_ms_max);
        if (!late && open_ < plan_.in_flight) {
          start(due);
        } else if (due >= from_) {
          ++result_.not_sent;
        }
        due = begin_ + ns_of(static_cast<double>(++due_count) / plan_.rate);
        if (due_count % kStartsPerTurn == 0) break;
      }
      turn(std::min(due, until_));
    }
    while (open_ > 0) turn(SteadyTime::max());
  }

  // A generator that is behind still takes answers.
  static constexpr uint64_t kStartsPerTurn = 64;

  const int epoll_;
  Connections& connections_;
  const Work& work_;
  const Plan& plan_;
  const CallHeaders headers_;
  std::vector<bool> blocked_ = std::vector<bool>(connections_.size(), false);
  uint64_t next_index_;
  size_t open_ = 0;
  SteadyTime begin_, from_, until_, last_answer_;
  SteadyTime window_begin_, window_end_;
  double window_begin_cpu_ = -1, window_end_cpu_ = -1;
  double window_begin_server_ = 0, window_end_server_ = 0;
  LoadResult result_;
};

class Load final : public GrpcLoad {
 public:
  Load(SslContext context, Connections connections)
      : context_(std::move(context)), connections_(std::move(connections)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (size_t i = 0; i < connections_.size(); ++i) {
      epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
      ::epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i]->fd(), &event);
    }
  }
  ~Load() override { ::close(epoll_); }
  LoadResult run(const Work& work, const Plan& plan) override { return Run(epoll_, connections_, work, plan).go(); }

 private:
  const SslContext context_;
  Connections connections_;
  const int epoll_;
};

}  // namespace

Result<std::unique_ptr<GrpcLoad>> GrpcLoad::connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                    int connections) {
  UCCP_TRY(SslContext context, make_client_context(tls, "h2"));
  Connections opened;
  for (int i = 0; i < connections; ++i) {
    const std::string& target = targets[static_cast<size_t>(i) % targets.size()];
    UCCP_TRY(auto socket, TlsClient::connect(*context, target, 10));
    opened.push_back(std::make_unique<Connection>(std::move(socket)));
  }
  return std::make_unique<Load>(std::move(context), std::move(opened));
}

}  // namespace uccp::bench
