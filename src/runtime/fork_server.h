// Forks for a program that has threads: a small process without threads of its own, made before they start.
//
// fork() of a process with many threads and much memory is slow twice: its page tables are copied, and every page that
// the threads write afterwards faults. The server is small and stays so. It makes children that belong to whoever
// started it (CLONE_PARENT): they are waited for, signalled and counted there, and their parent death signal tells of
// *its* thread that called start(), which therefore has to last. Why not vfork: a child that has changed its user can
// be stopped by other processes of that user, and what shares its memory would stand still with it.
//
// Invariants: the server holds nothing for a child but what one request brought; it ends when the program does, however
// that ends, and never before unless it is killed; a reply that does not come is an error, and then the server is given
// up for good.
// Thread: start() before any other thread exists; fork() and bind() on any thread, one at a time go through.
#pragma once

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <string>

#include "base/status.h"

namespace uccp::runtime {

struct ChildPlan;

struct ForkedChild {
  pid_t pid = -1;
  int pidfd = -1;  // the caller's to close
};

class ForkServer {
 public:
  // `program` is the path of uccp-spawn; empty, or one that cannot be executed: a copy of this program serves.
  // Errors: exhausted FORK_SERVER_FAILED.
  static Result<std::unique_ptr<ForkServer>> start(const std::string& program);
  // Ends the server and waits for it. Children that it made live on.
  ~ForkServer();
  ForkServer(const ForkServer&) = delete;
  ForkServer& operator=(const ForkServer&) = delete;

  // Gives the server a mount namespace of its own, once, and binds `from` at `to` in it: children made from now on
  // inherit it. Requires root. Errors: failed_precondition MOUNT_NAMESPACE_FAILED, unavailable FORK_SERVER_GONE.
  Status bind(const std::string& from, const std::string& to);

  // Makes a child that runs the plan. Errors: exhausted SPAWN_EXHAUSTED, unavailable FORK_SERVER_GONE.
  Result<ForkedChild> fork(const ChildPlan& plan);

  // False once a request found it gone.
  bool alive() const;
  pid_t pid() const { return pid_; }

 private:
  ForkServer(int socket, pid_t pid) : socket_(socket), pid_(pid) {}
  Status gone(const char* what);

  mutable std::mutex mutex_;  // of the socket: a request and its reply belong together
  int socket_;
  const pid_t pid_;
  bool alive_ = true;
};

}  // namespace uccp::runtime
