// Runs calls of functions in warm Python processes, and hands everything else on to the process executor.
//
// A worker is an attempt of the process executor under a key of its own: so it has the user, the limits and the control
// group that a command of the same namespace and resources would have, nothing of it outlives it, and it ends with the
// agent. Workers are kept by pool: tenant, namespace, limits and requirements; a worker never serves another pool. A
// worker has one call at a time and is told of it over a socket; it keeps the functions that it has loaded. One that is
// idle stays for a while, and goes when another pool needs its place.
//
// Invariants: as executor.h says. A call ends when its worker has answered or is dead, so no process of an ended call
// works on it; a worker that was stopped for a call is never used again.
// Thread: the reactor's.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "agent/actor_calls.h"
#include "agent/executor.h"
#include "agent/function_environments.h"
#include "agent/function_values.h"
#include "agent/function_wire.h"
#include "agent/reactor.h"

namespace uccp::agent {

class ObjectServer;

struct FunctionExecutorOptions {
  std::string data_directory;         // large values are <data>/values/<key> until they are uploaded
  std::string python;                 // of the package uccp
  size_t workers_max = 8;             // processes at a time
  int64_t idle_ms = 300'000;          // a worker without a call for so long ends
  int64_t start_timeout_ms = 60'000;  // from the start of a process to its first message
  uint64_t value_bytes_max = 1ull << 30;
  ActorLimits actors;
  ObjectServer* objects = nullptr;  // null: no objects are shared here
};

class FunctionExecutor final : public ExecutorBackend, public ExecutorSink {
 public:
  // `sink` gets what becomes of calls and commands alike. All references must outlive the executor.
  FunctionExecutor(Reactor& reactor, const Clock& clock, FunctionExecutorOptions options, ExecutorSink& sink);
  ~FunctionExecutor() override;
  // The executor of commands, whose sink this one is; outlives this one. Call once, before anything else.
  Status attach(ExecutorBackend& processes);

  void launch(std::vector<AttemptSpec> specs) override;
  void cancel(const AttemptKey& key, const CancelOptions& options) override;
  void credit(const AttemptKey& key, size_t bytes) override;
  void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) override;
  void release(const AttemptKey& key) override;
  void deliver(const AttemptKey& key, uint64_t channel, std::string_view data) override;
  void close_channel(const AttemptKey& key, uint64_t channel) override;
  Capacity capacity() const override { return processes_->capacity(); }
  AttemptUse usage(const AttemptKey& key) const override;
  std::vector<std::string> reconcile() override;
  void drain(const CancelOptions& options, std::move_only_function<void()> drained) override;

  // From the process executor.
  void started(const AttemptKey& key, WallTime time) override;
  void output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) override;
  void finished(const AttemptKey& key, AttemptEnd end) override;
  void yielded(const AttemptKey& key, WallTime time, AttemptValue value) override {
    sink_.yielded(key, time, std::move(value));
  }
  void answered(const AttemptKey& key, uint64_t channel, std::string data) override {
    sink_.answered(key, channel, std::move(data));
  }

  // For tests and status lines.
  size_t workers() const { return workers_.size(); }

 private:
  struct Call;
  struct Worker;
  struct Pool;

  // function_executor.cc: calls.
  void launch_call(AttemptSpec spec);
  void pump(Pool& pool);
  void pump_all();
  void forget_unused_pools();
  void assign(Worker& worker, const std::shared_ptr<Call>& call);
  void reply(Worker& worker, WorkerPacket packet);
  void yielded(Worker& worker, WorkerPacket packet);
  void keep_value(const std::shared_ptr<Call>& call, WorkerReply reply);
  void stop(const std::shared_ptr<Call>& call, const CancelOptions& options);
  void end_call(const std::shared_ptr<Call>& call, AttemptEnd end);
  void end_later(const std::shared_ptr<Call>& call, EndKind kind, std::string message, bool worker_fault);

  // function_actors.cc: calls that stay, and what is called on them.
  void begin_actor(const std::shared_ptr<Call>& call);
  Status send_to(const Call& call, char kind, const std::string& body);
  void actor_packet(Worker& worker, WorkerPacket& packet);
  uint64_t packet_bytes_max() const;

  // function_workers.cc: processes.
  void start_worker(Pool& pool);
  void accept_workers();
  void on_stranger(int fd);
  void on_packet(const AttemptKey& key);
  void became_idle(Worker& worker);
  void rest(Worker& worker);
  bool make_place(const Pool& pool);
  void expect_end(Worker& worker);
  void stop_worker(Worker& worker);
  void worker_ended(const AttemptKey& key, const AttemptEnd& end);
  void fail_waiting(Pool& pool, const std::string& message);
  Worker* idle_worker(Pool& pool);
  Pool& pool_of(const Call& call);

  Reactor& reactor_;
  const Clock& clock_;
  const FunctionExecutorOptions options_;
  ExecutorSink& sink_;
  ExecutorBackend* processes_ = nullptr;
  FunctionEnvironments environments_;
  WorkerListener listener_;
  std::map<int, OwnedFd> strangers_;  // connected, and have not said who they are

  std::unordered_map<AttemptKey, std::shared_ptr<Call>> calls_;  // until release()
  std::unordered_map<AttemptKey, std::unique_ptr<Worker>> workers_;
  std::map<std::string, std::unique_ptr<Pool>> pools_;
  uint64_t next_worker_ = 1;
  bool draining_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  FunctionValues values_;
};

}  // namespace uccp::agent
