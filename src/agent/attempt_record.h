// What the agent's core knows of one attempt, from its launch to the acknowledged outcome.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/executor.h"
#include "agent/link.h"
#include "agent/log_file.h"

namespace uccp::agent {

enum class Phase : uint8_t {
  kFetching,   // its inputs come from the cluster
  kRunning,    // handed to the executor
  kUploading,  // it has ended; its output and artifacts go to the cluster
  kReported,   // the outcome was sent, or will be with the next Hello
};

struct AttemptRecord {
  wire::AttemptId id;
  AttemptKey key;
  Phase phase = Phase::kFetching;
  AttemptSpec spec;                   // until it is handed to the executor
  std::vector<std::string> fetching;  // hashes not there yet, in the order in which they are fetched
  std::vector<std::string> pinned;
  WallTime start;  // 0: its command does not run yet
  bool stopping = false;
  std::unique_ptr<AttemptLog> log;      // until it is uploaded
  std::unique_ptr<AttemptLog> yielded;  // values of a generator, likewise; null: it is no function
  wire::AttemptOutcome outcome;
  std::vector<BlobSource> uploads;   // not done yet
  std::vector<BlobSource> uploaded;  // kept files of a stored outcome, removed at the end
  bool upload_running = false;
  uint64_t stream = 0;    // number of the connection on which the outcome was sent last
  bool stored = false;    // in the outcome store
  bool released = false;  // the executor has forgotten it
};

}  // namespace uccp::agent
