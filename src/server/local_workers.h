// A provisioner that starts agents on this machine: a directory an instance below the data directory, with the agent's
// flags of its group.
//
// Agents outlive the server, so that tasks go on; the next server finds them by their directories, and whether one
// lives by the lock that it holds there. Nothing else is remembered. Callable from any thread; works on a thread of its
// own.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "runtime/loop.h"
#include "runtime/subprocess.h"
#include "services/tasks/provisioner.h"

namespace uccp::server {

// What the agents of a group are started with.
struct LocalGroup {
  std::vector<std::string> flags;
  std::string inventory;  // JSON of its devices; empty: what the machine has
};

struct LocalWorkersOptions {
  std::string program;       // path of uccp-agent
  std::string directory;     // of the instances
  std::string context_file;  // how agents reach the server
  std::map<std::string, LocalGroup> groups;
};

class LocalWorkers final : public tasks::Provisioner {
 public:
  static Result<std::unique_ptr<LocalWorkers>> open(LocalWorkersOptions options, FileSystem& files, const Clock& clock);
  // Leaves the agents running.
  ~LocalWorkers() override;

  // Errors: not_found GROUP_NOT_FOUND, and those of Subprocess::spawn().
  void start(const std::string& group, const std::string& instance, Done done) override;
  void stop(const std::string& instance) override;
  void list(Listed listed) override;

  // Ends all agents, also those of earlier servers, and waits until they have; starts no more. Their directories stay:
  // a later server starts them again, and they say what became of their tasks.
  void stop_all();

 private:
  struct Instance {
    std::string group;
    std::optional<runtime::Subprocess> child;  // nothing: of an earlier server
    BootTime started;
    bool stopping = false;
    bool killed = false;
    BootTime stop_asked;
  };

  LocalWorkers(LocalWorkersOptions options, FileSystem& files, const Clock& clock);
  std::string path_of(const std::string& instance) const { return options_.directory + "/" + instance; }
  Status find_instances();
  Status spawn(const std::string& id, Instance& instance);
  bool alive(const std::string& id, Instance& instance);
  void signal(const std::string& id, Instance& instance, int number);
  void ask_to_stop(const std::string& id, Instance& instance);
  bool tend();
  void keep_tending();
  void keep_stopping(const std::shared_ptr<std::promise<void>>& ended);

  const LocalWorkersOptions options_;
  FileSystem& files_;
  const Clock& clock_;
  bool closed_ = false;
  bool tending_ = false;
  std::map<std::string, Instance> instances_;
  runtime::Loop loop_;
};

}  // namespace uccp::server
