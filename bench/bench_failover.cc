// How long no write is acknowledged when the leader of three nodes is killed, frozen or cut off, beside etcd. Defaults
// on both sides, which are the same: a follower campaigns after 1 to 2 s without a leader.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "bench/consensus.h"
#include "bench/namespaces.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kWritesPerSecond = 200;
constexpr double kOutageMaxS = 20;
constexpr int64_t kWriteDeadlineMs = 3'000;
constexpr auto kPoll = std::chrono::milliseconds(5);
constexpr auto kHealthyMax = std::chrono::seconds(40);
constexpr size_t kStartsKept = 1 << 14;  // more than are at work or came meanwhile

int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

// Puts at a fixed rate through all nodes, whatever becomes of them, and remembers when the first one that began after a
// given moment was acknowledged. So a call that hangs in a node that lost its leader holds up nobody but itself.
class Writer {
 public:
  explicit Writer(Side& side) : side_(side), work_(put_work(side.ours)) {
    work_.request = [this, inner = std::move(work_.request)](uint64_t i) {
      started_[i % kStartsKept].store(now_ns());
      return inner(i);
    };
    work_.verify = [this, inner = std::move(work_.verify)](uint64_t i, std::string_view reply) {
      if (!inner(i, reply)) return false;
      ++acknowledged_;
      int64_t none = 0;
      const int64_t from = from_.load();
      if (from != 0 && started_[i % kStartsKept].load() > from) first_.compare_exchange_strong(none, now_ns());
      return true;
    };
    thread_ = std::thread([this] {
      side_.run(work_, {.in_flight = 4096,
                        .rate = kWritesPerSecond,
                        .seconds = 120,
                        .warm_up_s = 0,
                        .stop = &stop_,
                        .deadline_ms = kWriteDeadlineMs});
    });
  }
  ~Writer() {
    stop_ = true;
    thread_.join();
  }

  bool wait_acknowledged(uint64_t count) {
    return wait([&] { return acknowledged_.load() >= count; });
  }
  // Milliseconds from `harm`, as it begins, to the acknowledgement of a write that began after it.
  Result<double> outage(const std::function<void()>& harm) {
    const int64_t at = now_ns();
    harm();
    from_ = at;
    if (!wait([&] { return first_.load() != 0; })) {
      return fail(Code::kUnavailable, "BENCH_FAILED", fmt::format("no write within {} s", kOutageMaxS));
    }
    return static_cast<double>(first_.load() - at) / 1e6;
  }

 private:
  static bool wait(const std::function<bool()>& condition) {
    for (const auto begin = Clock::now(); !condition(); std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
      if (Clock::now() - begin > std::chrono::duration<double>(kOutageMaxS)) return false;
    }
    return true;
  }

  Side& side_;
  Work work_;
  std::array<std::atomic<int64_t>, kStartsKept> started_{};
  std::atomic<int64_t> from_{0}, first_{0};
  std::atomic<uint64_t> acknowledged_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Waits until each node acknowledges writes.
Status wait_healthy(Side& side) {
  const Work work = put_work(side.ours);
  std::string last = "it cannot be connected to";
  for (size_t node = 0; node < side.cluster->size(); ++node) {
    for (const auto begin = Clock::now();; std::this_thread::sleep_for(kPoll)) {
      if (auto load = GrpcLoad::connect(side.cluster->target(node), side.cluster->tls(), 1)) {
        const LoadResult result =
            (*load)->run(work, {.in_flight = 1, .operations = 3, .first_index = side.next, .deadline_ms = 2'000});
        side.next = result.next_index;
        if (result.ok == 3) break;
        last = fmt::format("{} of 3 writes, {} expired, {}{}", result.ok, result.expired, result.first_error,
                           result.first_shed);
      }
      if (Clock::now() - begin > kHealthyMax) {
        return Status(Code::kUnavailable, "BENCH_FAILED",
                      fmt::format("node {} of {} does not come back: {}", node + 1, side.ours ? "ours" : "etcd", last));
      }
    }
  }
  return side.connect(Side::Endpoints::kAll, static_cast<int>(side.cluster->size()));
}

struct Harm {
  std::string what;
  Goal goal;
  int pairs;
  std::function<void(Cluster&, size_t)> harm;
  std::function<Status(Cluster&, size_t)> mend;
};

Result<double> sample(Side& side, const Harm& kind) {
  UCCP_RETURN_IF_ERROR(wait_healthy(side));
  UCCP_TRY(const size_t leader, side.cluster->leader());
  Result<double> result = fail(Code::kUnavailable, "BENCH_FAILED", "no write before the fault");
  {
    Writer writer(side);
    if (writer.wait_acknowledged(50)) {
      result = writer.outage([&] { kind.harm(*side.cluster, leader); });
    }
  }
  UCCP_RETURN_IF_ERROR(kind.mend(*side.cluster, leader));
  return result;
}

Status measure(Context& context, Duel& duel, const Harm& kind, std::vector<double>& all_ours) {
  Row row{.metric = kind.what + ": time without an acknowledged write",
          .unit = "ms",
          .better = Better::kLower,
          .goal = kind.goal};
  duel.describe(row, fmt::format("puts at {}/s through all nodes, default timeouts on both sides", kWritesPerSecond));
  std::vector<double> own;
  for (int i = 0; i < kind.pairs; ++i) {
    UCCP_TRY(const double ours, sample(duel.ours, kind));
    row.add_ours(ours);
    own.push_back(ours);
    if (duel.etcd) {
      UCCP_TRY(const double theirs, sample(duel.theirs, kind));
      row.add_peer(theirs);
    }
    row.verified += 2;
  }
  row.detail("oursWorstMs", *std::ranges::max_element(own));
  all_ours.insert(all_ours.end(), own.begin(), own.end());
  context.emit(row);
  return Status::ok();
}

double p95(std::vector<double> values) {
  std::ranges::sort(values);
  return values[(values.size() * 95 + 99) / 100 - 1];
}

Status measure_partition(Context& context, std::vector<double>& all_ours) {
  auto network = Namespaces::make(3);
  if (!network) {
    Row row{.metric = "partition of the leader: time without an acknowledged write", .unit = "ms"};
    row.problem = network.error().message();
    context.emit(row);
    return Status::ok();
  }
  const auto at = (*network)->places();
  UCCP_TRY(const auto duel, Duel::start(context, {.places = at}));
  const Harm partition{.what = "partition of the leader",
                       .goal = {Goal::Of::kRatio, Better::kHigher, 1.0},
                       .pairs = context.quick ? 2 : 7,
                       .harm = [&](Cluster&, size_t node) { (*network)->isolate(node); },
                       .mend =
                           [&](Cluster&, size_t) {
                             (*network)->heal();
                             return Status::ok();
                           }};
  return measure(context, *duel, partition, all_ours);
}

}  // namespace

Status run_failover(Context& context) {
  std::vector<double> all_ours;
  {
    UCCP_TRY(const auto duel, Duel::start(context));
    const Harm killed{.what = "kill -9 of the leader",
                      .goal = {Goal::Of::kRatio, Better::kHigher, 1 / 0.3},
                      .pairs = context.quick ? 3 : 9,
                      .harm = [](Cluster& cluster, size_t node) { cluster.kill(node, SIGKILL); },
                      .mend = [](Cluster& cluster, size_t node) { return cluster.start(node); }};
    UCCP_RETURN_IF_ERROR(measure(context, *duel, killed, all_ours));
    const Harm frozen{.what = "SIGSTOP of the leader",
                      .goal = {Goal::Of::kRatio, Better::kHigher, 1.0},
                      .pairs = context.quick ? 2 : 7,
                      .harm = [](Cluster& cluster, size_t node) { ::kill(cluster.pid(node), SIGSTOP); },
                      .mend =
                          [](Cluster& cluster, size_t node) {
                            ::kill(cluster.pid(node), SIGCONT);
                            return Status::ok();
                          }};
    UCCP_RETURN_IF_ERROR(measure(context, *duel, frozen, all_ours));
  }
  UCCP_RETURN_IF_ERROR(measure_partition(context, all_ours));
  Row row{.metric = "p95 of all of these, ours",
          .unit = "ms",
          .better = Better::kLower,
          .goal = {Goal::Of::kOurs, Better::kLower, 2'500}};
  row.add_ours(p95(all_ours));
  row.verified = all_ours.size();
  context.emit(row);
  return Status::ok();
}

}  // namespace uccp::bench
