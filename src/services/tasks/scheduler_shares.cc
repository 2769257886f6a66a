// Scheduler, the part about tasks that share a device by turns.
#include "services/tasks/scheduler.h"

namespace uccp::tasks {

// Whether a task of the class could begin there: with a device of its own, or with a share of one that is open.
bool Scheduler::has_room(const Class& cls, WorkerSlot worker) const {
  if (fleet_.fits(worker, cls.asked.needs())) return true;
  const Demand& demand = cls.asked.demand();
  const int64_t share = gpu_share(demand.shape);
  return share > 0 && fleet_.fits(worker, cls.footprint->needs) &&
         shared_.find_on(worker, owner_of(demand), share) != 0;
}

// A worker where a device is open that has room for the share; none: one has to be opened.
WorkerSlot Scheduler::search_shared(Class& cls) {
  const Demand& demand = cls.asked.demand();
  const SharedDevices::Id device = shared_.find(owner_of(demand), gpu_share(demand.shape), [&](WorkerSlot slot) {
    return fleet_.open(slot) && !fleet_.held(slot) && fleet_.fits(slot, cls.footprint->needs) &&
           fleet_.meets(slot, cls.asked) && near_.allows(demand, fleet_.view(slot), false);
  });
  return device == 0 ? kNoWorker : shared_.worker_of(device);
}

SharedDevices::Id Scheduler::take_share(WorkerSlot worker, const Demand& demand) {
  const int64_t share = gpu_share(demand.shape);
  SharedDevices::Id device = shared_.find_on(worker, owner_of(demand), share);
  if (device == 0) {
    device = shared_.open(worker, owner_of(demand));
    fleet_.take(worker, Fleet::one_gpu());
  }
  shared_.join(device, share);
  return device;
}

double Scheduler::gpu_fragmentation() const {
  int64_t free = 0, whole = 0;
  for (const auto& [id, slot] : fleet_.by_id()) {
    if (!fleet_.open(slot) || fleet_.gpus(slot) == 0) continue;
    const int64_t here = std::max<int64_t>(0, fleet_.free_gpus(slot)) * SharedDevices::kWhole + shared_.room(slot);
    free += here;
    if (fleet_.free_gpus(slot) == fleet_.gpus(slot)) whole += here;
  }
  return free == 0 ? 0 : static_cast<double>(free - whole) / static_cast<double>(free);
}

}  // namespace uccp::tasks
