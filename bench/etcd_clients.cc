#include "bench/etcd_clients.h"

#include <fmt/format.h>

#include <charconv>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "bench/requests.h"
#include "call/wire.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLeaseSeconds = 600;
constexpr int64_t kCallMs = 60'000;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}
std::chrono::nanoseconds ns_of(double seconds) { return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)); }

// What all clients of one run share.
struct ChainRun {
  GrpcCalls& calls;
  ChainResult result = {};
  size_t active = 0;
  bool measuring = false, stopping = false;
  int inside = 0;  // of the one lock; releases are sent at the end of a turn

  void turn(SteadyTime limit) {
    inside = 0;
    calls.turn(limit);
  }
};

// One client: makes the calls of its chain one after the other, and begins anew until the run ends.
class Chain : public GrpcCaller {
 public:
  Chain(ChainRun& run, size_t number) : run_(run), number_(number) {}
  // The first call of the client.
  virtual void start() { begin(); }

  void on_ended(GrpcCall& call, SteadyTime) final {
    if (call.status == kGrpcOk) return std::exchange(next_, nullptr)(*this, call.answer());
    if (run_.result.error.empty()) run_.result.error = call.message;
    --run_.active;
  }

 protected:
  using Next = void (*)(Chain& self, std::string_view answer);
  // The first call of the chain.
  virtual void begin() = 0;
  void ask(const CallHeaders& headers, std::string_view request, Next next) {
    next_ = next;
    run_.calls.start(number_, headers, std::make_unique<GrpcCall>(*this, request),
                     Clock::now() + std::chrono::milliseconds(kCallMs));
  }
  void count() { run_.result.done += run_.measuring; }
  void again() {
    if (run_.stopping) --run_.active;
    else begin();
  }

  ChainRun& run_;
  const size_t number_;

 private:
  Next next_ = nullptr;
};

std::string grant_request() {
  std::string request;
  call::put_uint(request, 1, kLeaseSeconds);
  return request;
}

const CallHeaders kGrant("etcdserverpb.Lease/LeaseGrant", kCallMs);
const CallHeaders kPut(kEtcdPut, kCallMs);
const CallHeaders kLock("v3lockpb.Lock/Lock", kCallMs);
const CallHeaders kUnlock("v3lockpb.Lock/Unlock", kCallMs);
const CallHeaders kWatch("etcdserverpb.Watch/Watch");

class LockClient final : public Chain {
 public:
  LockClient(ChainRun& run, size_t number, std::string name, bool alone)
      : Chain(run, number), name_(std::move(name)), alone_(alone) {}

  void start() override {
    ask(kGrant, grant_request(), [](Chain& self, std::string_view answer) {
      auto& client = static_cast<LockClient&>(self);
      client.lease_ = varint_field(answer, 2);
      client.again();
    });
  }

 private:
  void begin() override {
    asked_ns_ = now_ns();
    std::string request;
    call::put_bytes(request, 1, name_);
    call::put_uint(request, 2, lease_);
    ask(kLock, request,
        [](Chain& self, std::string_view answer) { static_cast<LockClient&>(self).held(bytes_field(answer, 2)); });
  }
  void held(std::string_view key) {
    if (!alone_) run_.result.overlaps += run_.inside++ != 0;
    count();
    if (run_.measuring) run_.result.wait.record(now_ns() - asked_ns_);
    std::string request;
    call::put_bytes(request, 1, key);
    ask(kUnlock, request, [](Chain& self, std::string_view) { static_cast<LockClient&>(self).again(); });
  }

  const std::string name_;
  const bool alone_;
  uint64_t lease_ = 0;
  int64_t asked_ns_ = 0;
};

class LeaseClient final : public Chain {
 public:
  using Chain::Chain;

 private:
  void begin() override {
    ask(kGrant, grant_request(),
        [](Chain& self, std::string_view answer) { static_cast<LeaseClient&>(self).put(varint_field(answer, 2)); });
  }
  void put(uint64_t lease) {
    // As many bytes as the registration of an instance has.
    ++puts_;
    std::string request =
        etcd_put(fmt::format("bench/leased/{}/{}", number_, puts_), register_request(number_, puts_, kLeaseSeconds));
    call::put_uint(request, 3, lease);
    ask(kPut, request, [](Chain& self, std::string_view) {
      auto& client = static_cast<LeaseClient&>(self);
      client.count();
      client.again();
    });
  }

  uint64_t puts_ = 0;
};

// Lets the clients run for a while and then come to their end.
ChainResult measure(ChainRun& run, const std::vector<std::unique_ptr<Chain>>& clients, double warm_up_s,
                    double seconds) {
  run.active = clients.size();
  for (const auto& client : clients) client->start();
  const auto turn_until = [&run](SteadyTime end) {
    while (Clock::now() < end && run.active > 0) run.turn(end);
  };
  turn_until(Clock::now() + ns_of(warm_up_s));
  const SteadyTime begun = Clock::now();
  run.measuring = true;
  turn_until(begun + ns_of(seconds));
  run.measuring = false;
  run.result.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  run.stopping = true;
  // Each call has a deadline, so each client ends.
  while (run.active > 0) run.turn(Clock::now() + std::chrono::seconds(1));
  return run.result;
}

class AllWatchers final : public Watchers, public GrpcCaller {
 public:
  AllWatchers(std::unique_ptr<GrpcCalls> calls, size_t watchers, const std::string& key) : calls_(std::move(calls)) {
    std::vector<GrpcCall*> streams;
    for (size_t i = 0; i < calls_->connections(); ++i) streams.push_back(&calls_->open_stream(i, kWatch, *this));
    for (size_t i = 0; i < watchers; ++i) {
      std::string create, request;
      call::put_bytes(create, 1, key);
      call::put_bytes(request, 1, create);
      calls_->send(i, *streams[i % streams.size()], request);
    }
    thread_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) calls_->turn(Clock::now() + std::chrono::milliseconds(10));
    });
  }

  bool wait_created(size_t watchers) {
    return wait_until(60, [&] { return created_ >= watchers; });
  }
  size_t created() const {
    std::lock_guard lock(mutex_);
    return created_;
  }

  void reset() override {
    std::lock_guard lock(mutex_);
    seen_ = 0;
    lag_ = {};
  }
  bool wait(uint64_t events, double seconds) override {
    return wait_until(seconds, [&] { return seen_ >= events; });
  }
  uint64_t seen() const override {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  LatencyHistogram lag() const override {
    std::lock_guard lock(mutex_);
    return lag_;
  }
  std::string error() const override {
    std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  template <typename There>
  bool wait_until(double seconds, const There& there) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return there() || !error_.empty(); });
    return there();
  }

  void on_message(GrpcCall&, std::string_view response) override {
    const int64_t now = now_ns();
    call::WireReader reader(response);
    std::lock_guard lock(mutex_);
    for (call::WireField field; reader.next(field);) {
      if (field.number == 3 && field.value != 0) ++created_;
      if (field.number != 11) continue;
      const std::string_view value = bytes_field(bytes_field(field.bytes, 2), 5);
      int64_t put_ns = 0;
      std::from_chars(value.data(), value.data() + std::min<size_t>(value.size(), 16), put_ns, 16);
      lag_.record(now - put_ns);
      ++seen_;
    }
    changed_.notify_all();
  }
  void on_ended(GrpcCall& stream, SteadyTime) override {
    std::lock_guard lock(mutex_);
    error_ = fmt::format("a stream of watches ended: {}", stream.message);
    changed_.notify_all();
  }

  const std::unique_ptr<GrpcCalls> calls_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t created_ = 0;
  uint64_t seen_ = 0;
  LatencyHistogram lag_;
  std::string error_;
  std::jthread thread_;  // last: ends first
};

}  // namespace

ChainResult run_locks(GrpcCalls& calls, const LockPlan& plan) {
  ChainRun run{calls};
  std::vector<std::unique_ptr<Chain>> clients;
  for (size_t i = 0; i < plan.clients; ++i) {
    const std::string name = plan.distinct ? fmt::format("{}/{}", plan.prefix, i) : plan.prefix;
    clients.push_back(std::make_unique<LockClient>(run, i, name, plan.distinct));
  }
  return measure(run, clients, plan.warm_up_s, plan.seconds);
}

ChainResult run_leases(GrpcCalls& calls, size_t clients, double seconds) {
  ChainRun run{calls};
  std::vector<std::unique_ptr<Chain>> all;
  for (size_t i = 0; i < clients; ++i) all.push_back(std::make_unique<LeaseClient>(run, i));
  return measure(run, all, 0.3, seconds);
}

Result<std::unique_ptr<Watchers>> Watchers::start(const std::string& target, const TlsIdentity& tls, int connections,
                                                  size_t watchers, const std::string& key) {
  UCCP_TRY(auto calls, GrpcCalls::connect({target}, tls, connections));
  auto all = std::make_unique<AllWatchers>(std::move(calls), watchers, key);
  if (all->wait_created(watchers)) return all;
  return fail(Code::kUnavailable, "BENCH_FAILED",
              fmt::format("{} of {} watchers were made {}", all->created(), watchers, all->error()));
}

std::string stamped_value() { return fmt::format("{:016x}", static_cast<uint64_t>(now_ns())); }

}  // namespace uccp::bench
