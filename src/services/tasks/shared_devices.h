// Devices that tasks share by turns: which are open, whose they are, and how much of each is left.
//
// A device that nobody shares is counted whole by the fleet. The first share opens one: it is taken from the fleet
// as a whole, and other shares of the same namespace join it until it is full. Namespaces never share a device: the
// memory of one is open to all that run on it. Pure memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "services/tasks/fleet.h"

namespace uccp::tasks {

class SharedDevices {
 public:
  static constexpr int64_t kWhole = 1000;
  using Id = uint64_t;  // 0: none
  struct Owner {
    std::string tenant, name_space;
    auto operator<=>(const Owner&) const = default;
  };

  // Shares go where least is left, so that whole devices stay whole: the owner's open device with the least room that
  // is enough, on a worker that is allowed. 0 if there is none.
  using Allowed = std::function<bool(WorkerSlot)>;
  Id find(const Owner& owner, int64_t share, const Allowed& allowed) const;
  Id find_on(WorkerSlot worker, const Owner& owner, int64_t share) const;
  WorkerSlot worker_of(Id device) const { return devices_.at(device).worker; }

  // One more device of the worker is shared from now on.
  Id open(WorkerSlot worker, const Owner& owner);
  void join(Id device, int64_t share) { move(device, -share); }
  // True if nobody shares the device any more; it is gone then.
  bool leave(Id device, int64_t share);

  // What is left of the open devices of a worker, in thousandths.
  int64_t room(WorkerSlot worker) const;

 private:
  struct Device {
    WorkerSlot worker = kNoWorker;
    Owner owner;
    int64_t room = kWhole;
  };
  void move(Id device, int64_t more);

  std::map<Id, Device> devices_;
  std::map<Owner, std::set<std::pair<int64_t, Id>>> by_room_;
  std::map<WorkerSlot, std::set<Id>> on_worker_;
  Id next_ = 1;
};

}  // namespace uccp::tasks
