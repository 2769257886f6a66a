// Runs calls of functions on a Ray cluster, through the driver that the agent owns, and hands everything else on.
//
// Retries, priorities and quotas are the platform's: Ray runs each attempt once. A call has started when the driver was
// told of it. Outcomes that the driver told before its end count; calls that it had are lost then, which costs their
// tasks no attempt. The messages are those of docs/design/ray.md.
// Invariants: as executor.h says, as far as Ray does: an attempt that was stopped is over when Ray says so, or
// kEndMs after its grace. Thread: the reactor's.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "agent/actor_calls.h"
#include "agent/executor.h"
#include "agent/function_values.h"
#include "agent/ray_sidecar.h"

namespace uccp::agent {

struct RayExecutorOptions {
  std::string data_directory;
  RaySidecarOptions sidecar;
  ActorLimits actors;
};

class RayExecutor final : public ExecutorBackend, private RaySidecarObserver {
 public:
  // `sink` gets what becomes of calls. All references must outlive the executor.
  RayExecutor(Reactor& reactor, const Clock& clock, RayExecutorOptions options, ExecutorSink& sink);
  ~RayExecutor() override;
  // Who runs what is no call of a function, and has the same sink; outlives this one. Begins to start the driver. Call
  // once, before anything else. Errors: unavailable IO_ERROR.
  Status attach(ExecutorBackend& next);

  void launch(std::vector<AttemptSpec> specs) override;
  void cancel(const AttemptKey& key, const CancelOptions& options) override;
  void credit(const AttemptKey& key, size_t bytes) override;
  void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) override;
  void release(const AttemptKey& key) override;
  void deliver(const AttemptKey& key, uint64_t channel, std::string_view data) override;
  void close_channel(const AttemptKey& key, uint64_t channel) override;
  Capacity capacity() const override { return next_->capacity(); }
  AttemptUse usage(const AttemptKey& key) const override;
  std::vector<std::string> reconcile() override;
  void drain(const CancelOptions& options, std::move_only_function<void()> drained) override;

  // For tests.
  const RaySidecar& sidecar() const { return sidecar_; }
  size_t in_flight() const { return in_flight_.size(); }

 private:
  struct Call;
  using CallPointer = std::shared_ptr<Call>;

  // RaySidecarObserver
  void sidecar_up() override;
  void sidecar_message(char kind, std::string_view fields) override;
  void sidecar_down(const std::string& why) override;

  void launch_call(AttemptSpec spec);
  void hand_over(const CallPointer& call);
  void begin_actor(const CallPointer& call);
  Status send_to(uint64_t number, char kind, const std::string& body);
  void said(const CallPointer& call, char kind, std::string_view body);
  void ended_by_ray(const CallPointer& call, std::string_view fields);
  void stop(const CallPointer& call, const CancelOptions& options);
  void end_call(const CallPointer& call, AttemptEnd end);
  void end_later(const CallPointer& call, EndKind kind, std::string message, bool worker_fault);
  void check_drained();

  Reactor& reactor_;
  const Clock& clock_;
  const RayExecutorOptions options_;
  ExecutorSink& sink_;
  ExecutorBackend* next_ = nullptr;
  RaySidecar sidecar_;
  FunctionValues values_;
  std::unordered_map<AttemptKey, CallPointer> calls_;  // until release()
  std::deque<CallPointer> waiting_;                    // for a driver
  std::map<uint64_t, CallPointer> in_flight_;          // by the number that the present driver knows them by
  std::set<std::string> known_;                        // digests of functions that the present driver has
  uint64_t next_number_ = 1;
  std::move_only_function<void()> drained_;
  bool next_is_drained_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace uccp::agent
