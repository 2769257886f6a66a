// The worker: takes attempts from the cluster, has them run, and tells what became of them.
//
// Invariants:
// - An attempt whose lease ran out without a confirmed heartbeat is dead before the cluster stops waiting for it. The
//   lease counts on the boot clock from when the confirmed heartbeat was sent.
// - No attempt of another epoch than the present one is started, and those of older epochs are killed.
// - An attempt id is run at most once by one agent process; a repeated launch is answered by its state.
// - The outcome goes out after all content that it names is stored in the cluster, and is repeated until acknowledged.
//   While the link is up it lives in memory only; whenever the link is down it is on stable storage before anything of
//   the attempt is removed. So after a crash an attempt is either reported as it ended or reported LOST: never silent.
// Thread: everything on the loop given. Storing outcomes blocks it, which happens only while the link is down.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/attempt_record.h"
#include "agent/devices.h"
#include "agent/executor.h"
#include "agent/input_cache.h"
#include "agent/link.h"
#include "agent/log_follow.h"
#include "agent/machine_info.h"
#include "agent/outcome_store.h"
#include "base/executor.h"
#include "base/file_system.h"

namespace uccp::agent {

struct AgentOptions {
  std::string data_directory;
  std::string name;
  std::string version = "1.0.0";
  std::string incarnation;  // random, of this process
  std::string address;
  std::map<std::string, std::string> labels;
  std::string pool, region, zone;                       // empty: the cluster's default, none, none
  api::WorkerType type = api::WORKER_TYPE_UNSPECIFIED;  // unspecified: by its devices
  std::vector<api::Taint> taints;
  bool runs_functions = false;  // the executor can
  bool runs_containers = false;
  bool runs_ray_jobs = false;
  std::string isolation;  // how tasks are kept apart, and which limits hold
  size_t attempts_max = 1000;
  uint64_t cache_bytes_max = 4ull << 30;
  DeviceInventory devices;
  // End when no server was reachable for so long and nothing runs; 0: never.
  int64_t exit_after_alone_ms = 0;
};

class Agent final : public ExecutorSink, public LinkObserver {
 public:
  // Reads what an earlier agent left. The caller holds the lock on the data directory. All references must outlive the
  // agent. `ended` is called once, when the agent has nothing more to do and the program should exit.
  static Result<std::unique_ptr<Agent>> open(Executor& loop, const Clock& clock, FileSystem& files, ServerLink& link,
                                             AgentOptions options, std::function<void()> ended);
  ~Agent() override;

  // Clears away what was running, then connects. `backend` must outlive the agent.
  void start(ExecutorBackend& backend);
  // What a look at the devices found. When more or fewer of them work than before, the servers are told of another
  // capacity.
  void devices_seen(const std::vector<api::WorkerGpu>& seen);
  void set_isolation(std::string note) { options_.isolation = std::move(note); }
  // Takes nothing new, stops what runs with this grace, reports, ends. Idempotent.
  void shutdown(int64_t grace_ms, const std::string& reason);

  // ExecutorSink
  void started(const AttemptKey& key, WallTime time) override;
  void output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) override;
  void finished(const AttemptKey& key, AttemptEnd end) override;
  void yielded(const AttemptKey& key, WallTime time, AttemptValue value) override;
  void answered(const AttemptKey& key, uint64_t channel, std::string data) override;
  // LinkObserver
  void link_up() override;
  void link_down(const Status& why) override;
  void received(wire::ServerMessage message) override;
  void writable() override { followers_.pump_all(); }

  // For tests and status lines.
  size_t active() const { return active_; }  // attempts that run or are about to
  size_t known() const { return attempts_.size(); }
  const std::string& worker_id() const { return worker_id_; }

 private:
  static constexpr size_t kUploadsMax = 16;
  static constexpr size_t kDenialsMax = 10'000;
  static constexpr size_t kForgottenMax = 10'000;

  Agent(Executor& loop, const Clock& clock, FileSystem& files, ServerLink& link, AgentOptions options,
        std::function<void()> ended, OutcomeStore outcomes, InputCache cache);
  Status load_state();
  Status store_state();
  void load_outcomes();

  // agent.cc: the conversation.
  wire::Hello hello();
  void add_devices(wire::Hello& hello) const;
  void send_what_hello_missed();
  void welcome(const wire::Welcome& welcome);
  void send_heartbeat();
  void heartbeat_ack(const wire::HeartbeatAck& ack);
  void extend_lease(BootTime sent, int64_t lease_ms);
  void check_lease();
  void drain(const wire::DrainAgent& request);
  void check_alone();
  void check_ended();
  void end();

  // agent_attempts.cc: the attempts.
  void launch(wire::LaunchAttempt launch);
  void fetch_next(const AttemptKey& key);
  void hand_over(AttemptRecord& record);
  void cancel(const wire::CancelAttempt& request);
  void deliver(const wire::ChannelData& data);
  void stop(AttemptRecord& record, const CancelOptions& options);
  void stop_all(const CancelOptions& options);
  void end_without_run(AttemptRecord& record, EndKind kind, const std::string& message, bool worker_fault);
  void deny(const wire::AttemptId& id, wire::DenyReason reason, const std::string& message);
  void resend(const AttemptRecord& record);
  void send_started(const AttemptRecord& record);
  void add_log(AttemptRecord& record);
  void add_yielded(AttemptRecord& record);
  void upload_next();
  void uploaded(const AttemptKey& key, const Status& status);
  void report(AttemptRecord& record);
  void store(AttemptRecord& record);
  void acknowledged(const wire::AttemptId& id);
  void unpin(AttemptRecord& record);
  AttemptRecord* find(const AttemptKey& key);

  Executor& loop_;
  const Clock& clock_;
  FileSystem& files_;
  ServerLink& link_;
  AgentOptions options_;
  std::function<void()> ended_;
  ExecutorBackend* backend_ = nullptr;
  OutcomeStore outcomes_;
  InputCache cache_;
  LogFollowers followers_;
  LoadSampler load_;
  DevicePool devices_;
  bool devices_changed_ = false;  // since the last heartbeat

  // Kept in <data>/worker.
  std::string worker_id_;
  std::string cluster_id_;
  uint64_t epoch_ = 0;
  uint64_t starts_ = 0;  // agents that served the directory, this one included

  std::map<AttemptKey, AttemptRecord> attempts_;
  std::map<AttemptKey, wire::AttemptDenied> denials_;  // not acknowledged
  std::map<AttemptKey, uint64_t> forgotten_;           // acknowledged, with the number by which the oldest goes
  uint64_t forgotten_number_ = 0;
  std::map<uint64_t, AttemptKey> forgotten_order_;
  size_t active_ = 0;
  size_t uploads_running_ = 0;
  std::deque<AttemptKey> to_upload_;
  std::map<std::string, std::vector<AttemptKey>> fetches_;  // by hash: who waits

  bool connected_ = false;
  bool welcomed_ = false;
  uint64_t stream_ = 0;  // number of the connection
  BootTime hello_sent_;
  BootTime down_since_;
  int64_t heartbeat_ms_ = 1000;
  int64_t lease_ms_ = 0;
  uint64_t log_bytes_max_ = kLogBytesMaxDefault;
  uint64_t heartbeat_sequence_ = 0;
  std::map<uint64_t, BootTime> heartbeats_sent_;
  BootTime lease_end_;
  Executor::TimerId heartbeat_timer_ = 0;
  Executor::TimerId lease_timer_ = 0;
  Executor::TimerId drain_timer_ = 0;
  Executor::TimerId alone_timer_ = 0;
  bool draining_ = false;
  bool shutting_down_ = false;
  bool drained_ = false;
  bool ended_called_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace uccp::agent
