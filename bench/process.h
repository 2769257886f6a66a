// The programs that a benchmark starts, and what the kernel knows about them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "bench/bench.h"
#include "bench/load.h"
#include "runtime/subprocess.h"

namespace uccp::bench {

// A child that is terminated (then killed after 10 s) by the destructor.
class Child {
 public:
  static Result<Child> start(std::vector<std::string> argv, const std::string& log_path);
  ~Child();
  Child(Child&& other) noexcept : process_(std::move(other.process_)), running_(std::exchange(other.running_, false)) {}
  int pid() const { return process_.pid(); }
  // How it ended, if it did.
  std::optional<std::string> ended();
  void stop(int signal);

 private:
  explicit Child(runtime::Subprocess process) : process_(std::move(process)) {}
  runtime::Subprocess process_;
  bool running_ = true;
};

// One `uccp dev` on free ports with a data directory of its own, which goes with it.
class DevServer {
 public:
  struct Options {
    bool agent = false;
    std::vector<std::string> flags;
  };
  // Blocks until dev.json is there. Errors: unavailable SERVER_NOT_READY.
  static Result<std::unique_ptr<DevServer>> start(const Context& context, const Options& options);
  ~DevServer();

  const std::string& grpc() const { return grpc_; }
  const std::string& https() const { return https_; }
  const TlsIdentity& tls() const { return tls_; }
  const std::string& directory() const { return directory_; }
  int pid() const { return child_->pid(); }
  double ready_ms() const { return ready_ms_; }  // from exec to dev.json
  // The agent, a child of the server; 0: none.
  int agent_pid() const;

 private:
  std::string directory_, grpc_, https_;
  TlsIdentity tls_;
  double ready_ms_ = 0;
  std::optional<Child> child_;
};

// One etcd on free ports, with the certificates of `pki_directory` and its data on the disk of the context.
class Etcd {
 public:
  // Errors: not_found ETCD_MISSING if the program is not installed.
  static Result<std::unique_ptr<Etcd>> start(const Context& context, const std::string& pki_directory);
  ~Etcd();
  const std::string& target() const { return target_; }
  const std::string& version() const { return version_; }
  int pid() const { return child_->pid(); }

 private:
  std::string directory_, target_, version_;
  std::optional<Child> child_;
};

// Counts the fdatasync, fsync, msync and sync_file_range calls of a process with strace, from start() to stop().
class SyncCounter {
 public:
  // Errors: not_found STRACE_MISSING; unavailable STRACE_FAILED.
  static Result<SyncCounter> start(const Context& context, int pid);
  uint64_t stop();

 private:
  SyncCounter(Child child, std::string path) : child_(std::move(child)), path_(std::move(path)) {}
  Child child_;
  std::string path_;
};

// Resident set of a process now, and its largest so far; 0: it is gone.
double rss_mb(int pid);
double rss_max_mb(int pid);
// Whether a program of that name is on the path.
bool installed(const char* program);
// A new empty directory of this run.
std::string new_directory(const Context& context, const std::string& prefix);
// The body of GET http://HOST:PORT/path, plain HTTP; empty if there is none.
std::string http_get(const std::string& address, const std::string& path);
Result<std::string> read_text(const std::string& path);
// Runs a program to its end: how it ended, and what it printed, which is kept in the file `log`.
struct Ended {
  std::string how, text;
};
Result<Ended> run_program(const std::vector<std::string>& command, const std::string& log);
uint16_t free_port();

}  // namespace uccp::bench
