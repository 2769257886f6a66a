#include "bench/event_transactions.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "bench/event_requests.h"
#include "bench/grpc_calls.h"
#include "bench/requests.h"
#include "call/wire.h"

namespace uccp::bench {
namespace {

constexpr int kConnections = 8;
constexpr size_t kProducers = 16;
constexpr size_t kEvents = 100;  // of a transaction, and of a plain request
constexpr size_t kBytes = 100;
constexpr int64_t kDeadlineMs = 30'000;
constexpr char kBegin[] = "uccp.v1.EventBus/BeginTransaction";
constexpr char kCommit[] = "uccp.v1.EventBus/CommitTransaction";
// Numbers of fields in the contract: of a Publish; of a request whose only field is a name or an id.
constexpr uint32_t kTransactionField = 11, kFirstField = 1;

std::string first_field(std::string_view text) {
  std::string out;
  call::put_bytes(out, kFirstField, text);
  return out;
}

struct Measured {
  uint64_t transactions = 0;  // committed in the window
  LatencyHistogram latency;   // from the beginning of one to the answer of its commit
  std::string failure;
};

// One producer: begins, publishes, commits, and again.
class Producer final : public GrpcCaller {
 public:
  Producer(GrpcCalls& calls, const std::string& topic, size_t number, SteadyTime from, SteadyTime until,
           Measured& measured)
      : calls_(calls),
        topic_(topic),
        number_(number),
        name_(fmt::format("{}-{}", topic, number)),
        from_(from),
        until_(until),
        measured_(measured) {}

  void begin() {
    step_ = Step::kBegin;
    begun_ = SteadyTime::clock::now();
    ask(begin_, first_field(name_));
  }
  bool ended() const { return ended_; }

 private:
  enum class Step : uint8_t { kBegin, kPublish, kCommit };

  void ask(const CallHeaders& headers, std::string_view request) {
    calls_.start(number_, headers, std::make_unique<GrpcCall>(*this, request),
                 SteadyTime::clock::now() + std::chrono::milliseconds(kDeadlineMs));
  }

  void on_ended(GrpcCall& call, SteadyTime now) override {
    if (call.status != kGrpcOk) {
      if (measured_.failure.empty()) measured_.failure = call.message;
      ended_ = true;
      return;
    }
    if (step_ == Step::kBegin) {
      id_ = bytes_field(call.answer(), kFirstField);
      step_ = Step::kPublish;
      std::string request = publish_many(topic_, kBytes, kEvents);
      call::put_bytes(request, kTransactionField, id_);
      return ask(publish_, request);
    }
    if (step_ == Step::kPublish) {
      step_ = Step::kCommit;
      return ask(commit_, first_field(id_));
    }
    if (now >= from_ && now < until_) {
      ++measured_.transactions;
      measured_.latency.record(std::chrono::nanoseconds(now - begun_).count());
    }
    if (now >= until_) ended_ = true;
    else begin();
  }

  const CallHeaders begin_{kBegin, kDeadlineMs}, publish_{kPublish, kDeadlineMs}, commit_{kCommit, kDeadlineMs};
  GrpcCalls& calls_;
  const std::string topic_;
  const size_t number_;
  const std::string name_;
  const SteadyTime from_, until_;
  Measured& measured_;
  Step step_ = Step::kBegin;
  SteadyTime begun_;
  std::string id_;
  bool ended_ = false;
};

Status make_topic(GrpcLoad& load, const std::string& name) {
  Work work;
  work.method = kCreateTopic;
  work.request = [&](uint64_t) { return create_request(name); };
  work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  const LoadResult made = load.run(work, {.in_flight = 1, .operations = 1});
  if (made.ok == 1) return Status::ok();
  return Status(Code::kUnavailable, "BENCH_FAILED", "no topic: " + made.first_error + made.first_shed);
}

// A new cluster knows transactions when it has risen to the newest level.
Status await_level(GrpcLoad& load) {
  Work work;
  work.method = kBegin;
  work.request = [](uint64_t) { return first_field("level"); };
  work.verify = [](uint64_t, std::string_view reply) { return !reply.empty(); };
  LoadResult result;
  for (const SteadyTime begin = SteadyTime::clock::now(); since(begin) < 30;) {
    result = load.run(work, {.in_flight = 1, .operations = 1});
    if (result.ok == 1) return Status::ok();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return Status(Code::kUnavailable, "BENCH_FAILED", "no transaction begins: " + result.first_shed + result.first_error);
}

Result<Measured> run_transactions(UccpCluster& cluster, const std::string& topic, double seconds) {
  UCCP_TRY(const auto calls, GrpcCalls::connect(cluster.targets(), cluster.tls(), kConnections));
  const SteadyTime from = SteadyTime::clock::now() + std::chrono::milliseconds(300);
  const SteadyTime until = from + std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  Measured measured;
  std::vector<std::unique_ptr<Producer>> producers;
  for (size_t i = 0; i < kProducers; ++i) {
    producers.push_back(std::make_unique<Producer>(*calls, topic, i, from, until, measured));
    producers.back()->begin();
  }
  while (!std::ranges::all_of(producers, [](const auto& one) { return one->ended(); })) {
    calls->turn(SteadyTime::clock::now() + std::chrono::milliseconds(50));
  }
  return measured;
}

}  // namespace

Status measure_transactions(Context& context, UccpCluster& cluster) {
  const double seconds = context.quick ? 1.5 : 3;
  UCCP_TRY(const auto load, GrpcLoad::connect(cluster.targets(), cluster.tls(), kConnections));
  UCCP_RETURN_IF_ERROR(await_level(*load));
  Row rate{.metric = "events in transactions of 100, 16 producers, 100 B, 1 node", .unit = "1/s"};
  rate.peer_name = "the same requests without transactions";
  Row late{.metric = "a transaction of 100 events, p99, 16 producers", .unit = "ms", .better = Better::kLower};
  rate.settings = late.settings = fmt::format("closed loop, {} connections, one partition", kConnections);
  for (int i = 0; i < context.pairs(); ++i) {
    const std::string topic = fmt::format("all-or-none-{}", i);
    UCCP_RETURN_IF_ERROR(make_topic(*load, topic));
    UCCP_TRY(const Measured measured, run_transactions(cluster, topic, seconds));
    if (!measured.failure.empty()) rate.problem = measured.failure;
    rate.add_ours(static_cast<double>(measured.transactions * kEvents) / seconds);
    rate.verified += measured.transactions * kEvents;
    late.add_ours(measured.latency.percentile_ms(0.99));
    late.detail("p50Ms", measured.latency.percentile_ms(0.5));
    late.verified += measured.transactions;
    Work plain;
    plain.method = kPublish;
    plain.request = [&](uint64_t) { return publish_many(topic, kBytes, kEvents); };
    plain.verify = [](uint64_t, std::string_view reply) { return count_items(reply, kFirstField) == kEvents; };
    const LoadResult result = load->run(plain, {.in_flight = kProducers, .seconds = seconds});
    rate.add_peer(result.rate() * kEvents);
    note_failures(rate, result, false);
  }
  context.emit(rate);
  context.emit(late);
  return Status::ok();
}

}  // namespace uccp::bench
