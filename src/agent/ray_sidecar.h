// The driver of Ray that the agent owns: a Python process (python/uccp_ray.py) behind a socket, started anew when it
// ends.
//
// A sidecar has an epoch. Messages of another epoch than the present one are never seen: each sidecar has a secret of
// its own, and its socket is closed before the next one is started. Messages go in batches, at most `packets_ahead` of
// them that the sidecar has not taken; what else waits does so here. The messages are those of docs/design/ray.md.
// Thread: the reactor's; nothing blocks.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/function_wire.h"
#include "agent/reactor.h"
#include "runtime/subprocess.h"
#include "runtime/thread_pool.h"

namespace uccp::agent {

struct RaySidecarOptions {
  std::vector<std::string> command;  // starts it
  std::string address;               // auto, HOST:PORT or ray://HOST:PORT
  std::string log_path;              // what it writes
  int64_t start_timeout_ms = 120'000;
  // From the end of a sidecar to the start of the next one: the first is doubled until one is up.
  int64_t restart_ms_min = 200;
  int64_t restart_ms_max = 10'000;
  size_t packets_ahead = 32;
  uint64_t packet_bytes_max = 1ull << 30;
  runtime::ForkServer* fork_server = nullptr;
};

class RaySidecarObserver {
 public:
  virtual ~RaySidecarObserver() = default;
  // It is connected to Ray and takes messages.
  virtual void sidecar_up() = 0;
  virtual void sidecar_message(char kind, std::string_view fields) = 0;
  // It has ended, or could not begin; the next one is started after a while.
  virtual void sidecar_down(const std::string& why) = 0;
};

class RaySidecar {
 public:
  // All references must outlive it.
  RaySidecar(Reactor& reactor, RaySidecarOptions options, RaySidecarObserver& observer);
  ~RaySidecar();

  // Opens the socket and begins to start it. Errors: unavailable IO_ERROR.
  Status start();
  // Requires: it is up. Files travel with the message, in the order in which they are named in it.
  void send(char kind, std::string_view fields, std::vector<OwnedFd> files = {});

  bool up() const { return up_; }
  // Grows with each sidecar that is started.
  uint64_t epoch() const { return epoch_; }
  // Of the present process; 0: there is none.
  pid_t pid() const { return process_ ? process_->pid() : 0; }

 private:
  struct Packet {
    std::string body;
    std::vector<OwnedFd> files;
  };

  void spawn();
  void spawned(uint64_t epoch, Result<runtime::Subprocess> process);
  void accept_one();
  void on_stranger(int fd);
  void said_hello(const WorkerPacket& packet);
  void on_packet();
  enum class Read : uint8_t { kOne, kNothing, kEnd };
  Read read_packet();
  void read_batch(std::string_view body);
  void on_exit();
  void down(const std::string& why);
  void flush();
  void flush_later(int64_t delay_ms);
  std::string last_words() const;

  Reactor& reactor_;
  const RaySidecarOptions options_;
  RaySidecarObserver& observer_;
  WorkerListener listener_;
  OwnedFd stranger_;  // connected, and has not said who it is
  OwnedFd socket_;
  std::optional<runtime::Subprocess> process_;
  std::string secret_;
  uint64_t epoch_ = 0;
  bool up_ = false;
  bool flush_posted_ = false;
  std::deque<Packet> queue_;
  size_t ahead_ = 0;  // packets that were sent and not taken
  int64_t restart_ms_;
  Executor::TimerId timer_ = 0;  // to its first message, or to the next start
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  runtime::ThreadPool starter_;
};

}  // namespace uccp::agent
