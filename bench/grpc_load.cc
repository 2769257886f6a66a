#include "bench/grpc_load.h"

#include <thread>

#include "bench/grpc_calls.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

std::chrono::nanoseconds ns_of(double seconds) { return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)); }

struct Operation final : GrpcCall {
  using GrpcCall::GrpcCall;
  uint64_t index = 0;
  SteadyTime due;
};

// One run, in the caller's thread.
class Run final : public GrpcCaller {
 public:
  Run(GrpcCalls& calls, const Work& work, const Plan& plan)
      : calls_(calls),
        work_(work),
        plan_(plan),
        headers_(work.method, plan.deadline_ms, work.consistency),
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
    const uint64_t index = next_index_++;
    auto operation = std::make_unique<Operation>(*this, work_.request(index));
    operation->index = index;
    operation->due = due;
    ++open_;
    calls_.start(index, headers_, std::move(operation), Clock::now() + std::chrono::milliseconds(plan_.deadline_ms));
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

  void on_ended(GrpcCall& call, SteadyTime now) override {
    const auto& operation = static_cast<Operation&>(call);
    --open_;
    last_answer_ = now;
    if (window_begin_cpu_ < 0 && now >= from_) note_window_begin();
    if (window_end_cpu_ < 0 && now >= until_) note_window_end();
    // An open loop counts the calls that were due in the window, a closed one those that were answered in it.
    const SteadyTime when = plan_.rate > 0 ? operation.due : now;
    const bool measured = when >= from_ && when < until_;
    if (operation.status == kGrpcOk && work_.verify(operation.index, operation.answer())) {
      ++result_.all_ok;
      if (!measured) return;
      ++result_.ok;
      result_.latency.record(std::chrono::nanoseconds(now - operation.due).count());
      return;
    }
    const bool shed = operation.status == kGrpcResourceExhausted || operation.status == kGrpcUnavailable;
    if (shed && result_.first_shed.empty()) result_.first_shed = operation.message;
    if (result_.first_error.empty() && !shed && operation.status != kGrpcDeadlineExceeded) {
      result_.first_error = operation.status == kGrpcOk
                                ? "the answer of call " + std::to_string(operation.index) + " is wrong"
                                : operation.message;
    }
    if (!measured) return;
    if (shed) ++result_.shed;
    else if (operation.status == kGrpcDeadlineExceeded) ++result_.expired;
    else ++result_.failed;
    if (operation.status == kGrpcNotFound) ++result_.not_found;
  }

  void closed_loop() {
    size_t wanted = plan_.in_flight;
    while (true) {
      const SteadyTime now = Clock::now();
      const bool more = now < until_;
      for (; more && wanted > 0 && !exhausted(); --wanted) start(now);
      if (open_ == 0) return;
      wanted = calls_.turn(SteadyTime::max());
      // A closed connection answers at once.
      if (wanted > 0 && calls_.all_closed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void open_loop() {
    uint64_t due_count = 0;
    SteadyTime due = begin_;
    while (due < until_ && !exhausted() && !(plan_.stop != nullptr && plan_.stop->load())) {
      for (SteadyTime now = Clock::now(); due <= now && due < until_ && !exhausted(); now = Clock::now()) {
        const bool late = plan_.late_ms_max > 0 && now - due > std::chrono::milliseconds(plan_.late_ms_max);
        if (!late && open_ < plan_.in_flight) {
          start(due);
        } else if (due >= from_) {
          ++result_.not_sent;
        }
        due = begin_ + ns_of(static_cast<double>(++due_count) / plan_.rate);
        if (due_count % kStartsPerTurn == 0) break;
      }
      calls_.turn(std::min(due, until_));
    }
    while (open_ > 0) calls_.turn(SteadyTime::max());
  }

  // A generator that is behind still takes answers.
  static constexpr uint64_t kStartsPerTurn = 64;

  GrpcCalls& calls_;
  const Work& work_;
  const Plan& plan_;
  const CallHeaders headers_;
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
  explicit Load(std::unique_ptr<GrpcCalls> calls) : calls_(std::move(calls)) {}
  LoadResult run(const Work& work, const Plan& plan) override { return Run(*calls_, work, plan).go(); }

 private:
  const std::unique_ptr<GrpcCalls> calls_;
};

}  // namespace

Result<std::unique_ptr<GrpcLoad>> GrpcLoad::connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                    int connections) {
  UCCP_TRY(auto calls, GrpcCalls::connect(targets, tls, connections));
  return std::make_unique<Load>(std::move(calls));
}

}  // namespace uccp::bench
