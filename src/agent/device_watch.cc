#include "agent/device_watch.h"

#include <chrono>
#include <iterator>
#include <utility>

#include "base/log.h"

namespace uccp::agent {

DeviceWatch::DeviceWatch(std::vector<std::unique_ptr<DeviceSource>> sources, int64_t interval_ms,
                         std::function<void(std::vector<api::WorkerGpu>)> seen)
    : sources_(std::move(sources)), seen_(std::move(seen)), thread_([this, interval_ms] { run(interval_ms); }) {}

DeviceWatch::~DeviceWatch() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ends_.notify_all();
  thread_.join();
}

void DeviceWatch::run(int64_t interval_ms) {
  std::unique_lock lock(mutex_);
  while (!ends_.wait_for(lock, std::chrono::milliseconds(interval_ms), [this] { return ended_; })) {
    lock.unlock();
    auto found = look();
    std::string problem = found ? "" : std::string(found.error().message());
    if (problem != problem_) {
      if (problem.empty()) log::info("devices are looked at again");
      else log::warn("devices cannot be looked at; what was seen last stays", {{"error", problem}});
    }
    problem_ = std::move(problem);
    if (found) seen_(std::move(found->gpus));
    lock.lock();
  }
}

Result<DeviceInventory> DeviceWatch::look() {
  DeviceInventory all;
  for (const auto& source : sources_) {
    UCCP_TRY(DeviceInventory found, source->find());
    std::ranges::move(found.gpus, std::back_inserter(all.gpus));
  }
  UCCP_RETURN_IF_ERROR(number_devices(all));
  return all;
}

}  // namespace uccp::agent
