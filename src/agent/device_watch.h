// Looks at a machine's graphics processors again and again: their health, memory in use, utilization, temperature.
//
// Drivers and files block, so it has a thread of its own. A look at which a source fails changes nothing; the failure
// is logged once until all sources work again.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/devices.h"

namespace uccp::agent {

class DeviceWatch {
 public:
  // `seen` gets what a look found, numbered, in the thread of the watch. The first look is one interval from now.
  DeviceWatch(std::vector<std::unique_ptr<DeviceSource>> sources, int64_t interval_ms,
              std::function<void(std::vector<api::WorkerGpu>)> seen);
  // Waits for a look that is under way.
  ~DeviceWatch();
  DeviceWatch(const DeviceWatch&) = delete;
  DeviceWatch& operator=(const DeviceWatch&) = delete;

 private:
  void run(int64_t interval_ms);
  Result<DeviceInventory> look();

  std::vector<std::unique_ptr<DeviceSource>> sources_;
  const std::function<void(std::vector<api::WorkerGpu>)> seen_;
  std::string problem_;  // of the last look
  std::mutex mutex_;
  std::condition_variable ends_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace uccp::agent
