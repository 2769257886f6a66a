// Runs attempts as processes of this machine.
//
// Each attempt is a session of its own in a control group of its own, prepared by one of two lasting threads and forked
// by the fork server, or by that thread if there is none (a parent death signal belongs to the thread that forked),
// then served by the loop alone: pidfd and pipes in epoll, no thread a task. An attempt that has exited is over only
// when everything in its control group is dead and its pipes are read to their end. If the agent dies, the kernel kills
// the process, and the guard what it left behind. Thread: the reactor's; see executor.h. drain before destruction, or
// what runs is killed.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/artifacts.h"
#include "agent/cgroup.h"
#include "agent/executor.h"
#include "agent/process_isolation.h"
#include "agent/reactor.h"
#include "base/file_system.h"
#include "runtime/fork_server.h"
#include "runtime/thread_pool.h"

namespace uccp::agent {

struct ProcessExecutorOptions {
  std::string data_directory;  // folders are <data>/tasks/<key>
  bool allow_root_tasks = false;
  std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  Capacity capacity;
  ArtifactLimits artifact_limits;
  // Null: found by detect_cgroups().
  std::optional<CgroupLayout> cgroups;
  std::string mount_point = "/run/uccp/tasks";
  size_t spawn_threads = 2;
  // Forks in place of this process, as long as it lives; outlives the executor. Null: the spawner threads fork.
  runtime::ForkServer* fork_server = nullptr;
};

class ProcessExecutor final : public ExecutorBackend {
 public:
  // Makes <data>/tasks. All references must outlive the executor. The caller holds the lock on the data directory.
  static Result<std::unique_ptr<ProcessExecutor>> open(Reactor& reactor, const Clock& clock, FileSystem& files,
                                                       ProcessExecutorOptions options, ExecutorSink& sink);
  ~ProcessExecutor() override;

  void launch(std::vector<AttemptSpec> specs) override;
  void cancel(const AttemptKey& key, const CancelOptions& options) override;
  void credit(const AttemptKey& key, size_t bytes) override;
  void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) override;
  void release(const AttemptKey& key) override;
  Capacity capacity() const override { return options_.capacity; }
  AttemptUse usage(const AttemptKey& key) const override;
  std::vector<std::string> reconcile() override;
  void drain(const CancelOptions& options, std::move_only_function<void()> drained) override;

  // A directory for what attempts of the same user share, made if missing, as their processes see it. It stays until
  // reconcile(). Errors: unavailable IO_ERROR; those of UidMap::uid_of().
  Result<std::string> shared_folder(const AttemptSpec& spec, const std::string& name);

  // One sentence each, for the worker's record.
  const std::string& isolation_note() const { return isolation_.note(); }
  std::string limits_note() const { return groups_.note(); }
  const CgroupPool& groups() const { return groups_; }

 private:
  struct Attempt;
  struct Spawned;
  using Attempts = std::unordered_map<AttemptKey, std::shared_ptr<Attempt>>;

  ProcessExecutor(Reactor& reactor, const Clock& clock, FileSystem& files, ProcessExecutorOptions options,
                  ExecutorSink& sink, ProcessIsolation isolation, CgroupLayout layout);

  void launch_one(AttemptSpec spec);
  runtime::SpawnOptions spawn_options(const Attempt& attempt) const;
  void spawn(const Attempt& attempt, runtime::SpawnOptions options, const std::string& folder, Spawned& spawned) const;
  Result<runtime::Subprocess> start_process(runtime::SpawnOptions& options) const;
  void on_spawned(const std::shared_ptr<Attempt>& attempt, Spawned& spawned);
  void launch_failed(const std::shared_ptr<Attempt>& attempt, const Status& status);
  void watch_pipe(const std::shared_ptr<Attempt>& attempt, int which);
  void on_readable(const std::shared_ptr<Attempt>& attempt, int which);
  void close_pipe(Attempt& attempt, int which);
  void pause_pipes(Attempt& attempt, bool paused);
  void stop(const std::shared_ptr<Attempt>& attempt, const CancelOptions& options);
  void kill_now(Attempt& attempt);
  void on_exit(const std::shared_ptr<Attempt>& attempt);
  void settle(const std::shared_ptr<Attempt>& attempt);
  void collect(const std::shared_ptr<Attempt>& attempt);
  void finish(const std::shared_ptr<Attempt>& attempt);
  void describe_end(Attempt& attempt) const;
  void check_drained();
  std::string folder_of(const AttemptKey& key) const { return options_.data_directory + "/tasks/" + key; }

  Reactor& reactor_;
  const Clock& clock_;
  FileSystem& files_;
  const ProcessExecutorOptions options_;
  ExecutorSink& sink_;
  ProcessIsolation isolation_;
  CgroupPool groups_;
  Attempts attempts_;
  size_t running_ = 0;  // launched and not finished
  bool draining_ = false;
  std::move_only_function<void()> drained_;
  std::string read_buffer_;
  // Posted completions check it: the reactor may outlive the executor.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  runtime::ThreadPool spawners_;
  runtime::ThreadPool disk_;
};

// Kills every process whose environment says that it belongs to the attempt: the way without control groups. True if
// none was found.
bool kill_by_environment(const AttemptKey& key);

}  // namespace uccp::agent
