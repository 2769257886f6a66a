#include "agent/devices.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "base/dotted_version.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

bool is_healthy(const api::GpuDevice& device) { return device.health() == api::HEALTH_STATUS_HEALTHY; }

// Shares are multiples of a hundredth, sums of them are not exact.
constexpr double kShareEpsilon = 1e-6;

// How closely the devices of a kind are connected, in order.
int strength(api::GpuTopology topology) {
  switch (topology) {
    case api::GPU_TOPOLOGY_NUMA: return 1;
    case api::GPU_TOPOLOGY_PCIE: return 2;
    case api::GPU_TOPOLOGY_NVLINK: return 3;
    default: return 0;
  }
}

// By vendor: the variables in which its libraries look for the devices they may use.
struct VendorVariables {
  std::string_view vendor;
  std::vector<std::string_view> names;
};
const std::array<VendorVariables, 3> kVariables = {{{"nvidia", {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}},
                                                    {"amd", {"ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}},
                                                    {"intel", {"ZE_AFFINITY_MASK"}}}};

}  // namespace

std::string device_type(std::string_view name) {
  constexpr size_t kTypeBytesMax = 63;
  std::string type;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    if (plain) type += c;
    else if (c >= 'A' && c <= 'Z') type += static_cast<char>(c - 'A' + 'a');
    else if (!type.empty() && type.back() != '-') type += '-';
  }
  if (type.size() > kTypeBytesMax) type.resize(kTypeBytesMax);
  while (!type.empty() && type.back() == '-') type.pop_back();
  return type;
}

Status number_devices(DeviceInventory& inventory) {
  constexpr int kDevicesMax = 1024;
  int next = 0;
  for (api::WorkerGpu& gpu : inventory.gpus) {
    const auto invalid = [&](std::string what) {
      return Status(Code::kInvalid, "INVENTORY_INVALID", "gpus of type \"" + gpu.type() + "\": " + what);
    };
    if (gpu.type().empty() || device_type(gpu.type()) != gpu.type()) {
      return invalid("a type is vendor and model in lower case, such as nvidia-h100");
    }
    if (gpu.count() != 0 && gpu.devices_size() != 0 && gpu.count() != gpu.devices_size()) {
      return invalid("count is " + std::to_string(gpu.count()) + ", but " + std::to_string(gpu.devices_size()) +
                     " devices are listed");
    }
    const int count = std::max(gpu.count(), gpu.devices_size());
    if (count <= 0 || count > kDevicesMax - next)
      return invalid("there are 1 to 1024 devices; name a count or list devices");
    while (gpu.devices_size() < count) gpu.add_devices();
    gpu.set_count(count);
    for (api::GpuDevice& device : *gpu.mutable_devices()) {
      device.set_index(next++);
      if (device.health() == api::HEALTH_STATUS_UNSPECIFIED) device.set_health(api::HEALTH_STATUS_HEALTHY);
      device.set_allocated(0);
    }
  }
  return {};
}

DeviceInventory find_devices(const std::vector<std::unique_ptr<DeviceSource>>& sources) {
  DeviceInventory all;
  for (const auto& source : sources) {
    auto found = source->find();
    if (!found) {
      log::warn("devices are not found", {{"error", found.error().message()}});
      continue;
    }
    all.gpus.insert(all.gpus.end(), found->gpus.begin(), found->gpus.end());
    all.accelerators.insert(all.accelerators.end(), found->accelerators.begin(), found->accelerators.end());
    all.network_bps = std::max(all.network_bps, found->network_bps);
    all.extended.insert(found->extended.begin(), found->extended.end());
  }
  if (Status status = number_devices(all); !status.is_ok()) {
    log::warn("graphics processors are left out", {{"error", status.message()}});
    all.gpus.clear();
  }
  return all;
}

api::GpuDevice* DevicePool::find(int index) {
  for (api::WorkerGpu& gpu : gpus_) {
    for (api::GpuDevice& device : *gpu.mutable_devices()) {
      if (device.index() == index) return &device;
    }
  }
  return nullptr;
}

// The kinds that fit, the best connected first if that matters.
std::vector<const api::WorkerGpu*> DevicePool::kinds_for(const api::GpuRequest& request) const {
  std::vector<const api::WorkerGpu*> kinds;
  for (const api::WorkerGpu& gpu : gpus_) {
    if (gpu.type().starts_with(request.type()) && gpu.memory() >= request.memory() &&
        strength(gpu.topology()) >= strength(request.topology()) &&
        dotted_version(gpu.driver_version()) >= dotted_version(request.driver_version_min())) {
      kinds.push_back(&gpu);
    }
  }
  if (request.count() > 1) {
    // They lie in one array, so that addresses are positions.
    std::ranges::sort(kinds, {}, [](const auto* gpu) { return std::pair(-strength(gpu->topology()), gpu); });
  }
  return kinds;
}

std::optional<int> DevicePool::device_for_share(const api::WorkerGpu& gpu, double share,
                                                const std::string& owner) const {
  const api::GpuDevice* best = nullptr;
  for (const api::GpuDevice& device : gpu.devices()) {
    if (!is_healthy(device) || device.allocated() + share > 1 + kShareEpsilon) continue;
    const auto sharer = shared_by_.find(device.index());
    if (device.allocated() > 0 && (sharer == shared_by_.end() || sharer->second != owner)) continue;
    if (best == nullptr || device.allocated() > best->allocated()) best = &device;
  }
  return best == nullptr ? std::nullopt : std::optional(best->index());
}

std::optional<std::vector<int>> DevicePool::take(const AttemptKey& key, const api::GpuRequest& request,
                                                 const std::string& owner) {
  if (request.count() <= 0) return std::vector<int>();
  const auto kinds = kinds_for(request);
  if (request.count() < 1) {
    for (const api::WorkerGpu* gpu : kinds) {
      const auto index = device_for_share(*gpu, request.count(), owner);
      if (!index) continue;
      api::GpuDevice* device = find(*index);
      device->set_allocated(std::min(1.0, device->allocated() + request.count()));
      shared_by_[*index] = owner;
      taken_[key] = {{*index}, request.count()};
      return taken_[key].devices;
    }
    return std::nullopt;
  }
  const auto wanted = static_cast<size_t>(std::ceil(request.count()));
  for (const api::WorkerGpu* gpu : kinds) {
    std::vector<int> free;
    for (const api::GpuDevice& device : gpu->devices()) {
      if (device.allocated() == 0 && is_healthy(device)) free.push_back(device.index());
    }
    if (free.size() < wanted) continue;
    free.resize(wanted);
    for (const int index : free) find(index)->set_allocated(1);
    taken_[key] = {free, 1};
    return free;
  }
  return std::nullopt;
}

bool DevicePool::give_back(const AttemptKey& key) {
  const auto node = taken_.extract(key);
  if (node.empty()) return false;
  for (const int index : node.mapped().devices) {
    api::GpuDevice* device = find(index);
    const double left = device->allocated() - node.mapped().share;
    device->set_allocated(left < kShareEpsilon ? 0 : left);
    if (device->allocated() == 0) shared_by_.erase(index);
  }
  return true;
}

void DevicePool::refresh(const std::vector<api::WorkerGpu>& seen) {
  std::map<std::string, const api::GpuDevice*> by_id;
  std::map<int, const api::GpuDevice*> by_number;
  for (const api::WorkerGpu& gpu : seen) {
    for (const api::GpuDevice& device : gpu.devices()) {
      if (device.uuid().empty()) by_number[device.index()] = &device;
      else by_id[device.uuid()] = &device;
    }
  }
  for (api::WorkerGpu& gpu : gpus_) {
    for (api::GpuDevice& device : *gpu.mutable_devices()) {
      const api::GpuDevice* now = nullptr;
      if (const auto it = by_id.find(device.uuid()); it != by_id.end()) now = it->second;
      else if (const auto at = by_number.find(device.index()); device.uuid().empty() && at != by_number.end())
        now = at->second;
      device.set_health(now == nullptr ? api::HEALTH_STATUS_UNHEALTHY : now->health());
      device.set_memory_used(now == nullptr ? 0 : now->memory_used());
      device.set_utilization(now == nullptr ? 0 : now->utilization());
      device.set_temperature(now == nullptr ? 0 : now->temperature());
    }
  }
}

size_t DevicePool::count() const {
  size_t count = 0;
  for (const api::WorkerGpu& gpu : gpus_)
    count += static_cast<size_t>(std::ranges::count_if(gpu.devices(), is_healthy));
  return count;
}

// Libraries number the devices of their own vendor from 0.
std::map<std::string, std::string> DevicePool::environment(const std::vector<int>& devices) const {
  const std::set<int> taken(devices.begin(), devices.end());
  std::map<std::string, std::string> out;
  for (const VendorVariables& vendor : kVariables) {
    std::string list;
    int number = 0;
    bool any = false;
    for (const api::WorkerGpu& gpu : gpus_) {
      if (!gpu.type().starts_with(vendor.vendor)) continue;
      any = true;
      for (const api::GpuDevice& device : gpu.devices()) {
        if (taken.contains(device.index())) list += (list.empty() ? "" : ",") + std::to_string(number);
        ++number;
      }
    }
    if (!any) continue;
    for (const std::string_view name : vendor.names) out[std::string(name)] = list;
    // Without it CUDA numbers the fastest device first, NVML in the order of the bus.
    if (vendor.vendor == "nvidia") out["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID";
  }
  // A vendor that is not known here: its devices by the one name that everybody understands.
  if (out.empty() && !taken.empty()) {
    std::string list;
    for (const int index : taken) list += (list.empty() ? "" : ",") + std::to_string(index);
    out["CUDA_VISIBLE_DEVICES"] = list;
  }
  return out;
}

}  // namespace uccp::agent
