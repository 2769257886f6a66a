// What the commands of the server program share: reporting, tokens, waiting for the end.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "runtime/signals.h"
#include "server/config.h"
#include "server/server.h"

namespace uccp::server {

// Prints the error to standard error; answers the exit code for it.
int report(const Status& status);
// "n3" or "3". Errors: invalid CONFIG_INVALID.
Result<NodeId> node_id(const std::string& text);
std::string absolute(const std::string& path);
// Logs a warning for each setting that was made and has no effect.
void warn_of_unused(const Config& config);
// Folder of the running program.
std::string program_folder();
// A token for the principal "admin" with all permissions, for the context files of a development cluster.
Result<std::string> admin_token(const std::string& key_pem, const Clock& clock);

// Waits for SIGINT, SIGTERM or a fatal error, whichever comes first. Requires: no other thread runs yet.
class StopSignal {
 public:
  StopSignal();
  void stop(std::optional<Status> why);
  std::optional<Status> wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::optional<Status> failure_;
  runtime::SignalWatcher watcher_;
};

// Ends the server and answers the exit code of the process. With a failure it does not return.
int finish(const std::optional<Status>& failure, Server& server);

}  // namespace uccp::server
