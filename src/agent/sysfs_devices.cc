// Devices as the kernel describes them: AMD's and Intel's graphics processors (class drm), TPUs and the like (class
// accel), and the speed of the network (class net). NVIDIA's own library knows more about its devices.
#include <algorithm>
#include <charconv>
#include <optional>

#include "agent/cgroup_files.h"
#include "agent/devices.h"

namespace uccp::agent {
namespace {

constexpr std::string_view kAmd = "0x1002";
constexpr std::string_view kIntel = "0x8086";
constexpr std::string_view kGoogle = "0x1ae0";
constexpr std::string_view kHabana = "0x1da3";

std::string word(const std::string& path) {
  std::string text = read_control(path);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::optional<int64_t> number(const std::string& path) {
  const std::string text = word(path);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// card0, but neither card0-HDMI-A-1 nor renderD128.
bool is_card(std::string_view name) {
  constexpr std::string_view kPrefix = "card";
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         std::ranges::all_of(name.substr(kPrefix.size()), [](char c) { return c >= '0' && c <= '9'; });
}

class SysfsDevices final : public DeviceSource {
 public:
  SysfsDevices(FileSystem& files, std::string root) : files_(files), root_(std::move(root)) {}

  Result<DeviceInventory> find() override {
    DeviceInventory inventory;
    for (const std::string& name : list("/class/drm")) {
      if (is_card(name)) add_card(root_ + "/class/drm/" + name + "/device", inventory);
    }
    for (const std::string& name : list("/class/accel"))
      add_accelerator(root_ + "/class/accel/" + name + "/device", inventory);
    // Not the sum: the parts of a bond would count twice, and one connection uses one interface.
    for (const std::string& name : list("/class/net")) {
      const std::string path = root_ + "/class/net/" + name;
      const auto mbps = number(path + "/speed");
      const bool real = files_.exists(path + "/device").value_or(false);
      if (real && mbps && *mbps > 0 && word(path + "/operstate") == "up") {
        inventory.network_bps = std::max(inventory.network_bps, static_cast<uint64_t>(*mbps) * 1'000'000);
      }
    }
    return inventory;
  }

 private:
  std::vector<std::string> list(const std::string& below) {
    auto names = files_.list(root_ + below);
    return names ? std::move(*names) : std::vector<std::string>();
  }

  void add_card(const std::string& device, DeviceInventory& inventory) {
    const std::string vendor = word(device + "/vendor");
    std::string id = word(device + "/device");
    if (id.starts_with("0x")) id.erase(0, 2);
    api::WorkerGpu kind;
    if (vendor == kAmd) {
      kind.set_type("amd-" + device_type(id));
      kind.set_memory(static_cast<uint64_t>(number(device + "/mem_info_vram_total").value_or(0)));
    } else if (vendor == kIntel) {
      // Those in the processor have no memory of their own and drive a screen.
      const auto memory = number(device + "/lmem_total_bytes");
      if (!memory) return;
      kind.set_type("intel-" + device_type(id));
      kind.set_memory(static_cast<uint64_t>(*memory));
    } else {
      return;
    }
    const auto known = std::ranges::find_if(inventory.gpus, [&](const api::WorkerGpu& one) {
      return one.type() == kind.type() && one.memory() == kind.memory();
    });
    api::WorkerGpu& entry = known == inventory.gpus.end() ? inventory.gpus.emplace_back(kind) : *known;
    entry.set_count(entry.count() + 1);
    api::GpuDevice& one = *entry.add_devices();
    one.set_health(api::HEALTH_STATUS_HEALTHY);
    one.set_uuid(word(device + "/unique_id"));
    one.set_memory_used(static_cast<uint64_t>(number(device + "/mem_info_vram_used").value_or(0)));
    one.set_utilization(static_cast<double>(number(device + "/gpu_busy_percent").value_or(0)) / 100);
  }

  void add_accelerator(const std::string& device, DeviceInventory& inventory) {
    const std::string vendor = word(device + "/vendor");
    if (vendor.empty()) return;
    const std::string kind = vendor == kGoogle ? "tpu" : vendor == kHabana ? "gaudi" : "accel";
    for (api::AcceleratorRequest& known : inventory.accelerators) {
      if (known.kind() == kind) return known.set_count(known.count() + 1);
    }
    api::AcceleratorRequest& one = inventory.accelerators.emplace_back();
    one.set_kind(kind);
    one.set_count(1);
  }

  FileSystem& files_;
  const std::string root_;
};

}  // namespace

std::unique_ptr<DeviceSource> sysfs_devices(FileSystem& files, std::string root) {
  return std::make_unique<SysfsDevices>(files, std::move(root));
}

}  // namespace uccp::agent
