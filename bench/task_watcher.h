// Which tasks have ended, as anybody who watches them sees it.
#pragma once

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "bench/histogram.h"
#include "bench/load.h"
#include "bench/requests.h"
#include "doors/grpc_client/channel.h"

namespace uccp::bench {

inline Result<std::unique_ptr<doors::GrpcChannel>> watch_channel(const std::string& target, const TlsIdentity& tls) {
  doors::ChannelOptions options;
  options.target = target;
  options.ca_pem = tls.ca_pem;
  options.certificate_pem = tls.certificate_pem;
  options.key_pem = tls.key_pem;
  return doors::GrpcChannel::connect(options);
}

// Follows WatchTasks and remembers which tasks ended, and how; of those named by timed_name() also after which time.
class TaskWatcher {
 public:
  explicit TaskWatcher(doors::GrpcChannel& channel) {
    stream_ = channel.stream_async("uccp.v1.TaskScheduling/WatchTasks",
                                   {.on_message = [this](std::string event) { take(event); },
                                    .on_done = [this](Status status) { end(std::move(status)); }});
    stream_->send({});
    stream_->half_close();
  }
  ~TaskWatcher() {
    stream_->cancel();
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return ended_; });
  }

  // Blocks until `count` tasks have ended. Returns the number that did.
  uint64_t wait(uint64_t count) {
    std::unique_lock lock(mutex_);
    wanted_ = count;
    wake_.wait_for(lock, kPatience, [&] { return finished_.size() >= count || ended_; });
    return finished_.size();
  }
  uint64_t wrong() {
    std::lock_guard lock(mutex_);
    return wrong_;
  }

  // Times since the last call.
  LatencyHistogram take_latency() {
    std::lock_guard lock(mutex_);
    return std::exchange(latency_, {});
  }

 private:
  static constexpr auto kPatience = std::chrono::seconds(60);
  static constexpr uint32_t kTaskId = 1, kTaskName = 2, kTaskStatus = 40, kTaskExitCode = 42, kEventTask = 3;
  static constexpr uint64_t kSucceeded = 5, kFirstTerminal = 5;

  void take(const std::string& event) {
    const int64_t now = std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    const std::string_view task = bytes_field(event, kEventTask);
    const uint64_t status = varint_field(task, kTaskStatus);
    if (status < kFirstTerminal) return;
    std::lock_guard lock(mutex_);
    if (!finished_.emplace(bytes_field(task, kTaskId)).second) return;
    int64_t began = 0;
    const std::string_view name = bytes_field(task, kTaskName);
    if (name.starts_with("t-") &&
        std::from_chars(name.data() + 2, name.data() + name.size(), began).ec == std::errc()) {
      latency_.record(now - began);
    }
    if (status != kSucceeded || varint_field(task, kTaskExitCode) != 0) ++wrong_;
    if (finished_.size() >= wanted_) wake_.notify_all();
  }
  void end(Status) {
    std::lock_guard lock(mutex_);
    ended_ = true;
    wake_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string, std::less<>> finished_;
  LatencyHistogram latency_;
  uint64_t wrong_ = 0, wanted_ = 0;
  bool ended_ = false;
  std::shared_ptr<doors::AsyncStream> stream_;
};

}  // namespace uccp::bench
