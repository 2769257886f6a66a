// NVIDIA's graphics processors through its management library, which comes with the driver and is loaded at run time.
// The functions and structures below are those of nvml.h that have not changed since driver 390.
#include <dlfcn.h>

#include "agent/devices.h"

namespace uccp::agent {
namespace {

using NvmlDevice = void*;
using NvmlReturn = int;
constexpr NvmlReturn kSuccess = 0;
constexpr unsigned kTextBytes = 96;
constexpr int kTemperatureGpu = 0;

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
    for (unsigned i = 0; i < count; ++i) add(i, driver, inventory);
    return inventory;
  }

 private:
  template <typename Function>
  void load(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    complete_ = complete_ && function != nullptr;
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
    if (!same) inventory.gpus.push_back(kind);
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
