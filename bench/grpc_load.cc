#include "bench/grpc_load.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <thread>
#include <vector>

#include "doors/grpc_client/byte_buffer.h"
#include "doors/grpc_client/process.h"

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

std::chrono::nanoseconds ns_of(double seconds) { return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)); }

struct Operation {
  uint64_t index = 0;
  SteadyTime due;
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  grpc::Status status;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

// One run. In a closed loop one thread does everything; in an open loop the caller paces and a second thread completes.
class Run {
 public:
  Run(std::vector<std::unique_ptr<grpc::GenericStub>>& stubs, const Work& work, const Plan& plan)
      : stubs_(stubs), work_(work), plan_(plan), path_("/" + work.method), next_index_(plan.first_index) {}

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
    operation->context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(plan_.deadline_ms));
    if (!work_.consistency.empty()) operation->context.AddMetadata("uccp-consistency", work_.consistency);
    grpc::GenericStub& stub = *stubs_[operation->index % stubs_.size()];
    const grpc::ByteBuffer request = doors::to_byte_buffer(work_.request(operation->index));
    operation->reader = stub.PrepareUnaryCall(&operation->context, path_, request, &queue_);
    operation->reader->StartCall();
    open_.fetch_add(1, std::memory_order_relaxed);
    Operation* tag = operation.release();
    tag->reader->Finish(&tag->response, &tag->status, tag);
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

  void finish(Operation& operation, SteadyTime now) {
    last_answer_ = now;
    if (window_begin_cpu_ < 0 && now >= from_) note_window_begin();
    if (window_end_cpu_ < 0 && now >= until_) note_window_end();
    // An open loop counts the calls that were due in the window, a closed one those that were answered in it.
    const SteadyTime when = plan_.rate > 0 ? operation.due : now;
    const bool measured = when >= from_ && when < until_;
    using enum grpc::StatusCode;
    const auto code = operation.status.error_code();
    if (code == OK && work_.verify(operation.index, view(operation.response))) {
      ++result_.all_ok;
      if (!measured) return;
      ++result_.ok;
      result_.latency.record(std::chrono::nanoseconds(now - operation.due).count());
      return;
    }
    const bool shed = code == RESOURCE_EXHAUSTED || code == UNAVAILABLE;
    if (shed && result_.first_shed.empty()) result_.first_shed = operation.status.error_message();
    if (result_.first_error.empty() && !shed && code != DEADLINE_EXCEEDED) {
      result_.first_error = code == OK ? "the answer of call " + std::to_string(operation.index) + " is wrong"
                                       : operation.status.error_message();
    }
    if (!measured) return;
    if (shed) ++result_.shed;
    else if (code == DEADLINE_EXCEEDED) ++result_.expired;
    else ++result_.failed;
    if (code == NOT_FOUND) ++result_.not_found;
  }

  std::string_view view(const grpc::ByteBuffer& buffer) {
    if (buffer.TrySingleSlice(&slice_).ok()) return {reinterpret_cast<const char*>(slice_.begin()), slice_.size()};
    copy_ = doors::to_string(buffer);
    return copy_;
  }

  void closed_loop() {
    const SteadyTime now = Clock::now();
    for (size_t i = 0; i < plan_.in_flight && !exhausted(); ++i) start(now);
    void* tag = nullptr;
    bool ok = false;
    while (open_.load(std::memory_order_relaxed) > 0 && queue_.Next(&tag, &ok)) {
      const std::unique_ptr<Operation> operation(static_cast<Operation*>(tag));
      const SteadyTime answered = Clock::now();
      finish(*operation, answered);
      open_.fetch_sub(1, std::memory_order_relaxed);
      if (answered < until_ && !exhausted()) start(Clock::now());
    }
  }

  void open_loop() {
    std::thread completer([this] {
      void* tag = nullptr;
      bool ok = false;
      while (queue_.Next(&tag, &ok)) {
        const std::unique_ptr<Operation> operation(static_cast<Operation*>(tag));
        finish(*operation, Clock::now());
        open_.fetch_sub(1, std::memory_order_release);
      }
    });
    uint64_t due_count = 0;
    for (SteadyTime due = begin_; due < until_; due = begin_ + ns_of(static_cast<double>(due_count) / plan_.rate)) {
      if (plan_.stop != nullptr && plan_.stop->load()) break;
      const SteadyTime now = Clock::now();
      if (due > now) std::this_thread::sleep_until(due);
      const bool late = plan_.late_ms_max > 0 && now - due > std::chrono::milliseconds(plan_.late_ms_max);
      if (!late && open_.load(std::memory_order_relaxed) < plan_.in_flight) {
        start(due);
      } else {
        if (due >= from_) ++result_.not_sent;
      }
      ++due_count;
    }
    while (open_.load(std::memory_order_acquire) > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    queue_.Shutdown();
    completer.join();
  }

  std::vector<std::unique_ptr<grpc::GenericStub>>& stubs_;
  const Work& work_;
  const Plan& plan_;
  const std::string path_;
  grpc::CompletionQueue queue_;
  uint64_t next_index_;
  std::atomic<size_t> open_{0};
  SteadyTime begin_, from_, until_, last_answer_;
  SteadyTime window_begin_, window_end_;
  double window_begin_cpu_ = -1, window_end_cpu_ = -1;
  double window_begin_server_ = 0, window_end_server_ = 0;
  grpc::Slice slice_;
  std::string copy_;
  LoadResult result_;
};

class Load final : public GrpcLoad {
 public:
  explicit Load(std::vector<std::unique_ptr<grpc::GenericStub>> stubs) : stubs_(std::move(stubs)) {}
  LoadResult run(const Work& work, const Plan& plan) override { return Run(stubs_, work, plan).go(); }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
};

}  // namespace

Result<std::unique_ptr<GrpcLoad>> GrpcLoad::connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                    int connections) {
  doors::prepare_grpc();
  grpc::SslCredentialsOptions options{tls.ca_pem, tls.key_pem, tls.certificate_pem};
  const auto credentials = grpc::SslCredentials(options);
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  for (int i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetMaxReceiveMessageSize(-1);
    const std::string& target = targets[static_cast<size_t>(i) % targets.size()];
    auto channel = grpc::CreateCustomChannel(target, credentials, arguments);
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
      return fail(Code::kUnavailable, "CONNECT_FAILED", "no gRPC connection to " + target + " within 10 s");
    }
    stubs.push_back(std::make_unique<grpc::GenericStub>(channel));
  }
  return std::make_unique<Load>(std::move(stubs));
}

}  // namespace uccp::bench
