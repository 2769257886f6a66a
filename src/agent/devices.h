// What a machine has beyond processor, memory and disk: graphics processors, other accelerators, network, and what an
// operator declares; and which task has which device.
//
// A DeviceSource finds them: NVML (NVIDIA, loaded at run time), sysfs (AMD, Intel, TPUs and the like, network), or a
// file that an operator wrote, for machines and devices that nothing here recognizes. Nothing of it is needed to build
// or run. Thread: the agent's loop.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/executor.h"
#include "base/file_system.h"
#include "base/status.h"
#include "uccp/v1/types.pb.h"
#include "uccp/v1/workers.pb.h"

namespace uccp::agent {

namespace api = ::uccp::v1;

struct DeviceInventory {
  // One entry a kind, all of its devices listed; indexes count from 0 over all kinds.
  std::vector<api::WorkerGpu> gpus;
  std::vector<api::AcceleratorRequest> accelerators;
  uint64_t network_bps = 0;  // 0: not known
  std::map<std::string, double> extended;
};

class DeviceSource {
 public:
  virtual ~DeviceSource() = default;
  // Nothing found is no error. Blocks for kernel files or a driver.
  virtual Result<DeviceInventory> find() = 0;
};

// NVIDIA's management library. A machine without it has nothing.
std::unique_ptr<DeviceSource> nvml_devices(const std::string& library = "libnvidia-ml.so.1");
// The kernel's description of the machine, below `root`.
std::unique_ptr<DeviceSource> sysfs_devices(FileSystem& files, std::string root = "/sys");
// A JSON file in the form of a Worker, as `uccp-cli worker get -o json` shows it: `gpus` and of `resources.total`
// accelerators, networkBps and extended. Errors: invalid INVENTORY_INVALID, and those of the file system.
std::unique_ptr<DeviceSource> inventory_file(FileSystem& files, std::string path);

// What all sources found together; a source that fails is logged and left out.
DeviceInventory find_devices(const std::vector<std::unique_ptr<DeviceSource>>& sources);
// Numbers the devices of all kinds, makes entries for those that are only counted, and takes as healthy what says
// nothing.
Status number_devices(DeviceInventory& inventory);

// Vendor and model as one word: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3.
std::string device_type(std::string_view name);

// Which attempt has which graphics processors. A device belongs to one attempt at a time, or to attempts of one owner
// that asked for shares of it.
class DevicePool {
 public:
  explicit DevicePool(std::vector<api::WorkerGpu> gpus) : gpus_(std::move(gpus)) {}

  // Devices of one kind that fit the request, all healthy and free, or nothing. A request for none is met by none. A
  // share is taken of the device with the least left that is enough, and of a free one only when there is none such.
  // Several devices are taken of the kind whose connection is best.
  std::optional<std::vector<int>> take(const AttemptKey& key, const api::GpuRequest& request, const std::string& owner);
  // True if the attempt had any.
  bool give_back(const AttemptKey& key);
  // What tells a task's libraries which devices it may use; on a machine with devices also to one that has none of
  // them.
  std::map<std::string, std::string> environment(const std::vector<int>& devices) const;

  // Takes over health, memory in use, utilization and temperature of the devices that were seen; one that was not, by
  // its unique id or else its number, is unhealthy. Devices that are new are not taken in: tasks know devices by
  // number.
  void refresh(const std::vector<api::WorkerGpu>& seen);

  // Healthy devices.
  size_t count() const;
  const std::vector<api::WorkerGpu>& gpus() const { return gpus_; }

 private:
  struct Taken {
    std::vector<int> devices;
    double share = 1;  // of each
  };
  api::GpuDevice* find(int index);
  std::vector<const api::WorkerGpu*> kinds_for(const api::GpuRequest& request) const;
  std::optional<int> device_for_share(const api::WorkerGpu& gpu, double share, const std::string& owner) const;

  std::vector<api::WorkerGpu> gpus_;  // `allocated` says what is taken
  std::map<AttemptKey, Taken> taken_;
  std::map<int, std::string> shared_by_;  // whose shares a device holds
};

}  // namespace uccp::agent
