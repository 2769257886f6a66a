#include "bench/etcd_clients.h"

#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "bench/requests.h"
#include "call/wire.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kGrant[] = "etcdserverpb.Lease/LeaseGrant";
constexpr char kLock[] = "v3lockpb.Lock/Lock";
constexpr char kUnlock[] = "v3lockpb.Lock/Unlock";
constexpr char kWatch[] = "etcdserverpb.Watch/Watch";
constexpr int64_t kLeaseSeconds = 600;
constexpr int64_t kCallMs = 60'000;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

// What all clients of one run share.
struct LockRun {
  std::mutex mutex;
  std::condition_variable changed;
  LockResult result;
  size_t active = 0;
  bool measuring = false, stopping = false;
  std::atomic<int> inside{0};  // of the one lock
};

class LockClient : public std::enable_shared_from_this<LockClient> {
 public:
  LockClient(doors::GrpcChannel& channel, std::shared_ptr<LockRun> run, std::string name, bool alone)
      : channel_(channel), run_(std::move(run)), name_(std::move(name)), alone_(alone) {}

  void start() {
    std::string request;
    call::put_uint(request, 1, kLeaseSeconds);
    ask(kGrant, std::move(request), [](LockClient& self, std::string_view reply) {
      self.lease_ = varint_field(reply, 2);
      self.lock();
    });
  }

 private:
  using Next = void (*)(LockClient& self, std::string_view reply);
  void ask(std::string_view method, std::string request, Next next) {
    channel_.unary_async(
        method, std::move(request),
        [self = shared_from_this(), next](Result<std::string> reply) {
          if (!reply) return self->end(reply.error().to_string());
          next(*self, *reply);
        },
        {.deadline_ms = kCallMs});
  }
  void lock() {
    {
      std::lock_guard lock(run_->mutex);
      if (run_->stopping) return leave();
    }
    asked_ns_ = now_ns();
    std::string request;
    call::put_bytes(request, 1, name_);
    call::put_uint(request, 2, lease_);
    ask(kLock, std::move(request), [](LockClient& self, std::string_view reply) { self.held(bytes_field(reply, 2)); });
  }
  void held(std::string_view key) {
    const int64_t waited = now_ns() - asked_ns_;
    const bool overlap = !alone_ && run_->inside.fetch_add(1) != 0;
    {
      std::lock_guard lock(run_->mutex);
      run_->result.overlaps += overlap;
      if (run_->measuring) {
        ++run_->result.acquired;
        run_->result.wait.record(waited);
      }
    }
    std::string request;
    call::put_bytes(request, 1, key);
    if (!alone_) run_->inside.fetch_sub(1);
    ask(kUnlock, std::move(request), [](LockClient& self, std::string_view) { self.lock(); });
  }
  void end(const std::string& why) {
    std::lock_guard lock(run_->mutex);
    if (run_->result.error.empty()) run_->result.error = why;
    leave();
  }
  void leave() {
    --run_->active;
    run_->changed.notify_all();
  }

  doors::GrpcChannel& channel_;
  const std::shared_ptr<LockRun> run_;
  const std::string name_;
  const bool alone_;
  uint64_t lease_ = 0;
  int64_t asked_ns_ = 0;
};

// Lets the clients run for a while and then come to their end.
LockResult measure(LockRun& run, double warm_up_s, double seconds) {
  const auto pause = [](double s) { std::this_thread::sleep_for(std::chrono::duration<double>(s)); };
  pause(warm_up_s);
  const auto begun = Clock::now();
  {
    std::lock_guard lock(run.mutex);
    run.measuring = true;
  }
  pause(seconds);
  std::unique_lock lock(run.mutex);
  run.measuring = false;
  run.result.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  run.stopping = true;
  const bool ended = run.changed.wait_for(lock, std::chrono::seconds(60), [&] { return run.active == 0; });
  if (!ended && run.result.error.empty()) {
    run.result.error = fmt::format("{} clients did not come to an end", run.active);
  }
  return run.result;
}

}  // namespace

Result<Channels> connect_etcd(const std::string& target, const TlsIdentity& tls, int connections) {
  Channels channels;
  for (int i = 0; i < connections; ++i) {
    doors::ChannelOptions options;
    options.target = target;
    options.ca_pem = tls.ca_pem;
    options.certificate_pem = tls.certificate_pem;
    options.key_pem = tls.key_pem;
    options.message_bytes_max = 64u << 20;
    UCCP_TRY(auto channel, doors::GrpcChannel::connect(std::move(options)));
    UCCP_RETURN_IF_ERROR(channel->wait_ready(10'000));
    channels.push_back(std::move(channel));
  }
  return channels;
}

LockResult run_locks(const Channels& channels, const LockPlan& plan) {
  const auto run = std::make_shared<LockRun>();
  run->active = plan.clients;
  for (size_t i = 0; i < plan.clients; ++i) {
    const std::string name = plan.distinct ? fmt::format("{}/{}", plan.prefix, i) : plan.prefix;
    std::make_shared<LockClient>(*channels[i % channels.size()], run, name, plan.distinct)->start();
  }
  return measure(*run, plan.warm_up_s, plan.seconds);
}

namespace {

class LeaseClient : public std::enable_shared_from_this<LeaseClient> {
 public:
  LeaseClient(doors::GrpcChannel& channel, std::shared_ptr<LockRun> run, size_t number)
      : channel_(channel), run_(std::move(run)), number_(number) {}

  void grant() {
    {
      std::lock_guard lock(run_->mutex);
      if (run_->stopping) return leave();
    }
    std::string request;
    call::put_uint(request, 1, kLeaseSeconds);
    channel_.unary_async(kGrant, std::move(request), [self = shared_from_this()](Result<std::string> reply) {
      if (!reply) return self->end(reply.error().to_string());
      self->put(varint_field(*reply, 2));
    }, {.deadline_ms = kCallMs});
  }

 private:
  void put(uint64_t lease) {
    std::string request;
    call::put_bytes(request, 1, fmt::format("bench/leased/{}/{}", number_, ++done_));
    // As many bytes as the registration of an instance has.
    call::put_bytes(request, 2, register_request(number_, done_, kLeaseSeconds));
    call::put_uint(request, 3, lease);
    channel_.unary_async(kEtcdPut, std::move(request), [self = shared_from_this()](Result<std::string> reply) {
      if (!reply) return self->end(reply.error().to_string());
      {
        std::lock_guard lock(self->run_->mutex);
        self->run_->result.acquired += self->run_->measuring;
      }
      self->grant();
    }, {.deadline_ms = kCallMs});
  }
  void end(const std::string& why) {
    std::lock_guard lock(run_->mutex);
    if (run_->result.error.empty()) run_->result.error = why;
    leave();
  }
  void leave() {
    --run_->active;
    run_->changed.notify_all();
  }

  doors::GrpcChannel& channel_;
  const std::shared_ptr<LockRun> run_;
  const size_t number_;
  uint64_t done_ = 0;
};

}  // namespace

LeaseResult run_leases(const Channels& channels, size_t clients, double seconds) {
  const auto run = std::make_shared<LockRun>();
  run->active = clients;
  for (size_t i = 0; i < clients; ++i) {
    std::make_shared<LeaseClient>(*channels[i % channels.size()], run, i)->grant();
  }
  const LockResult result = measure(*run, 0.3, seconds);
  return {result.rate(), result.error};
}

struct Watchers::Shared {
  mutable std::mutex mutex;
  std::condition_variable changed;
  size_t created = 0;
  uint64_t seen = 0;
  LatencyHistogram lag;
  std::string error;

  void take(std::string_view response) {
    const int64_t now = now_ns();
    call::WireReader reader(response);
    uint64_t events = 0;
    std::lock_guard lock(mutex);
    for (call::WireField field; reader.next(field);) {
      if (field.number == 3 && field.value != 0) ++created;
      if (field.number != 11) continue;
      const std::string_view value = bytes_field(bytes_field(field.bytes, 2), 5);
      int64_t put_ns = 0;
      std::from_chars(value.data(), value.data() + std::min<size_t>(value.size(), 16), put_ns, 16);
      lag.record(now - put_ns);
      ++events;
    }
    seen += events;
    changed.notify_all();
  }
};

Result<std::unique_ptr<Watchers>> Watchers::start(const Channels& channels, size_t watchers, const std::string& key) {
  std::unique_ptr<Watchers> all(new Watchers(std::make_shared<Shared>()));
  for (const auto& channel : channels) {
    doors::StreamCallbacks callbacks;
    callbacks.on_message = [shared = all->shared_](const std::string& message) { shared->take(message); };
    callbacks.on_done = [shared = all->shared_](const Status& status) {
      std::lock_guard lock(shared->mutex);
      if (!status.is_ok() && status.code() != Code::kCancelled) shared->error = status.to_string();
      shared->changed.notify_all();
    };
    all->streams_.push_back(channel->stream_async(kWatch, std::move(callbacks)));
  }
  for (size_t i = 0; i < watchers; ++i) {
    std::string create, request;
    call::put_bytes(create, 1, key);
    call::put_bytes(request, 1, create);
    all->streams_[i % all->streams_.size()]->send(std::move(request));
  }
  Shared& shared = *all->shared_;
  std::unique_lock lock(shared.mutex);
  const bool there = shared.changed.wait_for(lock, std::chrono::seconds(60),
                                             [&] { return shared.created >= watchers || !shared.error.empty(); });
  if (there && shared.error.empty()) return all;
  return fail(Code::kUnavailable, "BENCH_FAILED",
              fmt::format("{} of {} watchers were made: {}", shared.created, watchers, shared.error));
}

Watchers::~Watchers() {
  for (const auto& stream : streams_) stream->cancel();
}

void Watchers::reset() {
  std::lock_guard lock(shared_->mutex);
  shared_->seen = 0;
  shared_->lag = {};
}

bool Watchers::wait(uint64_t events, double seconds) {
  std::unique_lock lock(shared_->mutex);
  const auto all_seen = [&] { return shared_->seen >= events; };
  return shared_->changed.wait_for(lock, std::chrono::duration<double>(seconds), all_seen);
}

uint64_t Watchers::seen() const {
  std::lock_guard lock(shared_->mutex);
  return shared_->seen;
}
LatencyHistogram Watchers::lag() const {
  std::lock_guard lock(shared_->mutex);
  return shared_->lag;
}
std::string Watchers::error() const {
  std::lock_guard lock(shared_->mutex);
  return shared_->error;
}

std::string stamped_value() { return fmt::format("{:016x}", static_cast<uint64_t>(now_ns())); }

}  // namespace uccp::bench
