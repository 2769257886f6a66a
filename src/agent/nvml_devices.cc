// NVIDIA's graphics processors through its management library, which comes with the driver and is loaded at run time.
// The functions and structures below are those of nvml.h that have not changed since driver 390; those for partitions
// and connections are newer, and a driver need not have them.
#include <dlfcn.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "agent/devices.h"

namespace uccp::agent {
namespace {

using NvmlDevice = void*;
using NvmlReturn = int;
constexpr NvmlReturn kSuccess = 0;
constexpr unsigned kTextBytes = 96;
constexpr int kTemperatureGpu = 0;
constexpr int kPeersByNvlink = 2;
constexpr int kPeersOk = 0;
// How far up two devices meet.
constexpr int kBelowSwitches = 20;
constexpr int kBelowMemoryNode = 40;
constexpr unsigned kMigEnabled = 1;

struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlUtilization {
  unsigned gpu, memory;  // percent
};

// The library and those of its functions that are needed.
class Nvml {
 public:
  explicit Nvml(const std::string& path) : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    load(init_, "nvmlInit_v2");
    load(shutdown_, "nvmlShutdown");
    load(count_, "nvmlDeviceGetCount_v2");
    load(handle_, "nvmlDeviceGetHandleByIndex_v2");
    load(name_, "nvmlDeviceGetName");
    load(uuid_, "nvmlDeviceGetUUID");
    load(memory_, "nvmlDeviceGetMemoryInfo");
    load(driver_, "nvmlSystemGetDriverVersion");
    load(capability_, "nvmlDeviceGetCudaComputeCapability");
    load(utilization_, "nvmlDeviceGetUtilizationRates");
    load(temperature_, "nvmlDeviceGetTemperature");
    load_optional(peers_, "nvmlDeviceGetP2PStatus");
    load_optional(ancestor_, "nvmlDeviceGetTopologyCommonAncestor");
    load_optional(mig_mode_, "nvmlDeviceGetMigMode");
    load_optional(mig_count_, "nvmlDeviceGetMaxMigDeviceCount");
    load_optional(mig_handle_, "nvmlDeviceGetMigDeviceHandleByIndex");
  }
  ~Nvml() {
    if (started_) shutdown_();
    if (library_ != nullptr) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool present() const { return library_ != nullptr; }

  // The library is started once: that takes a driver that nobody else uses a second or more.
  Result<DeviceInventory> find() {
    if (!complete_) return failed("it lacks functions; its driver is too old");
    if (!started_) {
      if (const NvmlReturn code = init_(); code != kSuccess) return failed("nvmlInit answers " + std::to_string(code));
      started_ = true;
    }
    unsigned count = 0;
    if (const NvmlReturn code = count_(&count); code != kSuccess) {
      return failed("nvmlDeviceGetCount answers " + std::to_string(code));
    }
    char driver[kTextBytes] = {};
    (void)driver_(driver, sizeof driver);
    DeviceInventory inventory;
    handles_.clear();
    for (unsigned i = 0; i < count; ++i) add(i, driver, inventory);
    for (size_t i = 0; i < inventory.gpus.size(); ++i) inventory.gpus[i].set_topology(connection(handles_[i]));
    return inventory;
  }

 private:
  template <typename Function>
  void load(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    complete_ = complete_ && function != nullptr;
  }
  template <typename Function>
  void load_optional(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
  }
  static std::unexpected<Status> failed(const std::string& what) {
    return fail(Code::kUnavailable, "NVML_FAILED", "NVIDIA's management library: " + what);
  }

  // A device that does not answer is listed as unhealthy, so that the numbers of the others stay right.
  void add(unsigned index, const char* driver, DeviceInventory& inventory) {
    NvmlDevice device = nullptr;
    char name[kTextBytes] = {};
    NvmlMemory memory{};
    int major = 0, minor = 0;
    const bool answers = handle_(index, &device) == kSuccess && name_(device, name, sizeof name) == kSuccess &&
                         memory_(device, &memory) == kSuccess;
    api::WorkerGpu kind;
    kind.set_type(answers ? device_type(name) : "nvidia-unknown");
    kind.set_memory(memory.total);
    kind.set_driver_version(driver);
    if (answers && capability_(device, &major, &minor) == kSuccess) {
      kind.set_compute_capability(std::to_string(major) + "." + std::to_string(minor));
    }
    // Entries stay in the order of the bus: equal neighbours are one kind.
    const bool same = !inventory.gpus.empty() && inventory.gpus.back().type() == kind.type() &&
                      inventory.gpus.back().memory() == kind.memory();
    if (!same) {
      inventory.gpus.push_back(kind);
      handles_.emplace_back();
    }
    handles_.back().push_back(device);
    api::WorkerGpu& entry = inventory.gpus.back();
    entry.set_count(entry.count() + 1);
    api::GpuDevice& one = *entry.add_devices();
    one.set_health(answers ? api::HEALTH_STATUS_HEALTHY : api::HEALTH_STATUS_UNHEALTHY);
    if (!answers) return;
    char uuid[kTextBytes] = {};
    if (uuid_(device, uuid, sizeof uuid) == kSuccess) one.set_uuid(uuid);
    one.set_memory_used(memory.used);
    NvmlUtilization utilization{};
    if (utilization_(device, &utilization) == kSuccess) one.set_utilization(utilization.gpu / 100.0);
    unsigned celsius = 0;
    if (temperature_(device, kTemperatureGpu, &celsius) == kSuccess) one.set_temperature(celsius);
    add_partitions(device, one);
  }

  // A partition's name ends with its profile: "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
  void add_partitions(NvmlDevice device, api::GpuDevice& out) const {
    unsigned mode = 0, pending = 0, most = 0;
    if (mig_mode_ == nullptr || mig_count_ == nullptr || mig_handle_ == nullptr) return;
    if (mig_mode_(device, &mode, &pending) != kSuccess || mode != kMigEnabled) return;
    if (mig_count_(device, &most) != kSuccess) return;
    for (unsigned i = 0; i < most; ++i) {
      NvmlDevice partition = nullptr;
      char name[kTextBytes] = {};
      if (mig_handle_(device, i, &partition) != kSuccess || name_(partition, name, sizeof name) != kSuccess) continue;
      const std::string_view text(name);
      constexpr std::string_view kMark = "MIG ";
      const size_t at = text.rfind(kMark);
      if (at != std::string_view::npos) out.add_mig_profiles(std::string(text.substr(at + kMark.size())));
    }
  }

  // What any two devices of a kind are connected by at least, so that it holds whichever of them a task gets.
  api::GpuTopology connection(const std::vector<NvmlDevice>& devices) const {
    if (devices.size() < 2) return api::GPU_TOPOLOGY_UNSPECIFIED;
    bool nvlink = peers_ != nullptr;
    int highest = ancestor_ == nullptr ? kBelowMemoryNode + 1 : 0;
    for (size_t a = 0; a < devices.size(); ++a) {
      for (size_t b = a + 1; b < devices.size(); ++b) {
        int status = -1, meet = 0;
        nvlink = nvlink && peers_(devices[a], devices[b], kPeersByNvlink, &status) == kSuccess && status == kPeersOk;
        if (ancestor_ == nullptr || ancestor_(devices[a], devices[b], &meet) != kSuccess) meet = kBelowMemoryNode + 1;
        highest = std::max(highest, meet);
      }
    }
    if (nvlink) return api::GPU_TOPOLOGY_NVLINK;
    if (highest <= kBelowSwitches) return api::GPU_TOPOLOGY_PCIE;
    return highest <= kBelowMemoryNode ? api::GPU_TOPOLOGY_NUMA : api::GPU_TOPOLOGY_ANY;
  }

  void* library_;
  bool complete_ = true;
  bool started_ = false;
  NvmlReturn (*init_)() = nullptr;
  NvmlReturn (*shutdown_)() = nullptr;
  NvmlReturn (*count_)(unsigned*) = nullptr;
  NvmlReturn (*handle_)(unsigned, NvmlDevice*) = nullptr;
  NvmlReturn (*name_)(NvmlDevice, char*, unsigned) = nullptr;
  NvmlReturn (*uuid_)(NvmlDevice, char*, unsigned) = nullptr;
  NvmlReturn (*memory_)(NvmlDevice, NvmlMemory*) = nullptr;
  NvmlReturn (*driver_)(char*, unsigned) = nullptr;
  NvmlReturn (*capability_)(NvmlDevice, int*, int*) = nullptr;
  NvmlReturn (*utilization_)(NvmlDevice, NvmlUtilization*) = nullptr;
  NvmlReturn (*temperature_)(NvmlDevice, int, unsigned*) = nullptr;
  NvmlReturn (*peers_)(NvmlDevice, NvmlDevice, int, int*) = nullptr;
  NvmlReturn (*ancestor_)(NvmlDevice, NvmlDevice, int*) = nullptr;
  NvmlReturn (*mig_mode_)(NvmlDevice, unsigned*, unsigned*) = nullptr;
  NvmlReturn (*mig_count_)(NvmlDevice, unsigned*) = nullptr;
  NvmlReturn (*mig_handle_)(NvmlDevice, unsigned, NvmlDevice*) = nullptr;
  std::vector<std::vector<NvmlDevice>> handles_;  // by entry of the inventory
};

class NvmlDevices final : public DeviceSource {
 public:
  explicit NvmlDevices(const std::string& library) : nvml_(library) {}
  Result<DeviceInventory> find() override { return nvml_.present() ? nvml_.find() : DeviceInventory(); }

 private:
  Nvml nvml_;
};

}  // namespace

std::unique_ptr<DeviceSource> nvml_devices(const std::string& library) {
  return std::make_unique<NvmlDevices>(library);
}

}  // namespace uccp::agent
