// Private to the process executor: the record of one attempt, and the small pure parts of running it.
#pragma once

#include <optional>
#include <string>

#include "agent/process_executor.h"
#include "runtime/subprocess.h"

namespace uccp::agent {

inline constexpr std::string_view kIdentitySuffix = ".id";

struct ProcessExecutor::Attempt {
  std::shared_ptr<const AttemptSpec> spec;
  std::optional<runtime::ProcessIdentity> identity;
  std::unique_ptr<Cgroup> group;
  std::optional<runtime::Subprocess> process;
  int pipes[2] = {-1, -1};
  size_t uncredited = 0;
  bool paused = false;
  // Why it is being stopped; the first reason counts.
  std::optional<CancelOptions> cancel;
  BootTime kill_at;
  Executor::TimerId timeout = 0;
  Executor::TimerId kill = 0;
  bool forced = false;  // the grace was over
  bool exited = false;  // reaped; the rest of its group may still be dying
  bool settle_waits = false;
  bool settled = false;   // everything is dead and read
  bool finished = false;  // told to the sink
  runtime::ExitStatus exit;
  BootTime exit_time;
  uint64_t memory_peak = 0;
  AttemptEnd end;
};

struct ProcessExecutor::Spawned {
  Status status;
  std::optional<runtime::Subprocess> process;
  int pipes[2] = {-1, -1};

  Spawned() = default;
  Spawned(const Spawned&) = delete;
  Spawned& operator=(const Spawned&) = delete;
  // Closes pipes that nobody took.
  ~Spawned();
};

// The identity of an attempt is a file beside its folder, unreachable for the task.
std::string identity_path(const std::string& folder);
Status write_identity(const std::string& folder, const std::string& identity);

// Says which program was looked for, and where.
Status explain_launch_failure(const Status& status, const runtime::SpawnOptions& options);

// "1.5 s", "200 ms".
std::string format_ms(int64_t ms);
std::string format_bytes(uint64_t bytes);

}  // namespace uccp::agent
