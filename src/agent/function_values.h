// What becomes of the value of a call: a small one is in its outcome, a large one lies on the disk until it is
// uploaded.
//
// Thread: the loop's; disks are written by a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "agent/executor.h"
#include "agent/function_wire.h"
#include "base/executor.h"
#include "runtime/thread_pool.h"

namespace uccp::agent {

class FunctionValues {
 public:
  // Files are <data>/values/<key>. `loop` and `clock` must outlive it.
  FunctionValues(Executor& loop, const Clock& clock, const std::string& data_directory);
  ~FunctionValues();

  using Done = std::move_only_function<void(AttemptEnd)>;
  // How a call ends that answered so; at once if its value is small, else when that is on the disk.
  void keep(const AttemptKey& key, WorkerReply reply, WallTime start, Done done);
  // The value is not needed here any more.
  void forget(const AttemptKey& key);
  // Removes all that an earlier agent left: those values belong to attempts that it had not reported.
  void clear();

 private:
  std::string path_of(const AttemptKey& key) const { return directory_ + "/" + key; }

  Executor& loop_;
  const Clock& clock_;
  const std::string directory_;
  std::set<AttemptKey> on_disk_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  runtime::ThreadPool disk_;
};

}  // namespace uccp::agent
