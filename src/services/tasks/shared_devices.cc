#include "services/tasks/shared_devices.h"

namespace uccp::tasks {

SharedDevices::Id SharedDevices::find(const Owner& owner, int64_t share, const Allowed& allowed) const {
  const auto open = by_room_.find(owner);
  if (open == by_room_.end()) return 0;
  for (auto it = open->second.lower_bound({share, 0}); it != open->second.end(); ++it) {
    if (allowed(devices_.at(it->second).worker)) return it->second;
  }
  return 0;
}

SharedDevices::Id SharedDevices::find_on(WorkerSlot worker, const Owner& owner, int64_t share) const {
  const auto here = on_worker_.find(worker);
  if (here == on_worker_.end()) return 0;
  std::pair<int64_t, Id> best{kWhole + 1, 0};
  for (const Id id : here->second) {
    const Device& device = devices_.at(id);
    if (device.owner == owner && device.room >= share) best = std::min(best, {device.room, id});
  }
  return best.second;
}

SharedDevices::Id SharedDevices::open(WorkerSlot worker, const Owner& owner) {
  const Id id = next_++;
  devices_[id] = {worker, owner};
  by_room_[owner].emplace(kWhole, id);
  on_worker_[worker].insert(id);
  return id;
}

bool SharedDevices::leave(Id id, int64_t share) {
  move(id, share);
  const auto device = devices_.find(id);
  if (device->second.room < kWhole) return false;
  const auto of_owner = by_room_.find(device->second.owner);
  of_owner->second.erase({device->second.room, id});
  if (of_owner->second.empty()) by_room_.erase(of_owner);
  const auto here = on_worker_.find(device->second.worker);
  here->second.erase(id);
  if (here->second.empty()) on_worker_.erase(here);
  devices_.erase(device);
  return true;
}

void SharedDevices::move(Id id, int64_t more) {
  Device& device = devices_.at(id);
  auto& of_owner = by_room_.at(device.owner);
  of_owner.erase({device.room, id});
  device.room += more;
  of_owner.emplace(device.room, id);
}

int64_t SharedDevices::room(WorkerSlot worker) const {
  const auto here = on_worker_.find(worker);
  if (here == on_worker_.end()) return 0;
  int64_t room = 0;
  for (const Id id : here->second) room += devices_.at(id).room;
  return room;
}

}  // namespace uccp::tasks
