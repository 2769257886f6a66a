// The port behind which everything that runs is run: launch, cancel, credit, materialize, release, capacity, usage,
// reconcile, drain.
//
// Invariants: each launched attempt gives exactly one finished(); started() comes before it if the command ever ran;
// output() comes between the two and in the order in which it was read; after finished() no process of the attempt is
// alive. An executor stops reading the output of an attempt for which more than kOutputWindowBytes are not credited.
// Thread: everything here is called on one executor thread (the agent's loop), the sink included; nothing blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "services/tasks/log_format.h"

namespace uccp::agent {

inline constexpr size_t kOutputWindowBytes = 256u << 10;

// Names an attempt on this worker: readable, unique in the cluster, fit as a file name.
using AttemptKey = std::string;

// A file put into the attempt's folder before the command starts.
struct InputFile {
  std::string path;         // relative to the folder, without ".."
  std::string source_path;  // file to copy from; empty: `data` is the content
  std::string data;
  int mode = 0644;
};

struct AttemptLimits {
  int64_t cpu_millis = 0;     // 0: unlimited
  uint64_t memory_bytes = 0;  // 0: unlimited
  uint64_t disk_bytes = 0;    // 0: unlimited; bounds each file
  int64_t pids = 4096;

  auto operator<=>(const AttemptLimits&) const = default;
};

// An argument of a function call, as its content travels.
struct FunctionArgument {
  enum class Kind : uint8_t { kNone, kJson, kText, kData, kFile };
  Kind kind = Kind::kNone;
  std::string name;  // empty: positional
  std::string content_type;
  std::string content;  // JSON, text or bytes
  std::string input;    // kFile: path of the input that holds it
};

// A call of a function in place of a command; the function itself is the input functions::kBundleInput.
struct FunctionCallSpec {
  std::string name;
  std::vector<FunctionArgument> arguments;
  bool actor = false;            // it makes an object that stays
  int64_t owner_timeout_ms = 0;  // of an actor: 0, it lives without an owner
};

// The container that a command runs in; without a command, what its image says.
struct ContainerSpec {
  std::string image;
  bool read_only = false;
  bool host_network = false;
};

struct AttemptSpec {
  AttemptKey key;
  // Kept beside the folder and given back by reconcile(); means nothing to executors.
  std::string identity;
  std::string task_id;
  std::string tenant;
  std::string namespace_name;
  int attempt_number = 1;
  std::vector<std::string> command;
  std::optional<FunctionCallSpec> function;
  std::optional<ContainerSpec> container;
  bool ray_job = false;  // the command is a job of a Ray cluster
  std::map<std::string, std::string> env;
  std::string working_dir;  // relative to the folder
  std::string stdin_bytes;
  std::vector<InputFile> inputs;
  std::vector<std::string> outputs;  // globs
  AttemptLimits limits;
  int64_t timeout_ms = 0;  // 0: none
  int64_t grace_ms = 10'000;
};

// How an attempt ended, in the words of the contract's AttemptOutcomeKind.
enum class EndKind : uint8_t { kExited, kSignalled, kTimedOut, kCancelled, kLaunchFailed, kLost, kPreempted };

struct AttemptUse {
  double cpu_seconds = 0;
  uint64_t memory_bytes = 0;
  uint64_t memory_peak_bytes = 0;
  uint64_t disk_read_bytes = 0;
  uint64_t disk_write_bytes = 0;
};

struct CollectedArtifact {
  std::string path;  // relative to the folder
  uint64_t size = 0;
  std::string sha256;
  int mode = 0;
  std::string file;  // where the content is until release()
};

// What a function returned, or how it failed.
struct AttemptValue {
  std::string content_type;
  std::string data;
  bool is_artifact = false;  // the artifact functions::kValueArtifact holds it in place of `data`
};

struct AttemptEnd {
  EndKind kind = EndKind::kExited;
  std::optional<int> exit_code;  // only if it exited by itself
  int signal = 0;
  std::string message;
  // The worker is at fault (disk full, cannot spawn), not the task.
  bool worker_fault = false;
  WallTime start;  // 0: the command never ran
  WallTime end;
  AttemptUse usage;
  std::vector<CollectedArtifact> artifacts;
  std::optional<AttemptValue> value;
};

class ExecutorSink {
 public:
  virtual ~ExecutorSink() = default;
  virtual void started(const AttemptKey& key, WallTime time) = 0;
  virtual void output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) = 0;
  virtual void finished(const AttemptKey& key, AttemptEnd end) = 0;
  // A value that the function of a running attempt yields.
  virtual void yielded(const AttemptKey& /*key*/, WallTime /*time*/, AttemptValue /*value*/) {}
  // What a running attempt says on a channel that is open to it.
  virtual void answered(const AttemptKey& /*key*/, uint64_t /*channel*/, std::string /*data*/) {}
};

struct CancelOptions {
  int64_t grace_ms = 0;  // 0: killed at once
  EndKind kind = EndKind::kCancelled;
  std::string reason;
};

struct Capacity {
  int64_t cpu_millis = 0;
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;
};

class ExecutorBackend {
 public:
  virtual ~ExecutorBackend() = default;

  // Runs them. A key that is known already is ignored.
  virtual void launch(std::vector<AttemptSpec> specs) = 0;
  // Asks the attempt to stop, and kills all of it after the grace. Unknown and ended attempts are ignored; a second
  // call can only shorten the grace.
  virtual void cancel(const AttemptKey& key, const CancelOptions& options) = 0;
  // `bytes` of the output were taken over.
  virtual void credit(const AttemptKey& key, size_t bytes) = 0;
  // What comes on a channel to a running attempt, opened by its first message; for those that have none, nothing.
  virtual void deliver(const AttemptKey& /*key*/, uint64_t /*channel*/, std::string_view /*data*/) {}
  // The channel is over; 0: all of every attempt.
  virtual void close_channel(const AttemptKey& /*key*/, uint64_t /*channel*/) {}
  // Makes the folder of an attempt and places its inputs without running it, for attempts that start together later.
  virtual void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) = 0;
  // Forgets an attempt that has finished and removes its folder.
  virtual void release(const AttemptKey& key) = 0;
  virtual Capacity capacity() const = 0;
  // Use of a running attempt so far.
  virtual AttemptUse usage(const AttemptKey& key) const = 0;
  // Kills and clears away what an earlier agent left in this data directory. Returns the identities found.
  // Blocks; called once, before anything is launched.
  virtual std::vector<std::string> reconcile() = 0;
  // Cancels everything and takes no more; `drained` is called when nothing runs.
  virtual void drain(const CancelOptions& options, std::move_only_function<void()> drained) = 0;
};

}  // namespace uccp::agent
