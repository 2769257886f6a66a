#include "services/tasks/shapes.h"

#include <algorithm>

namespace uccp::tasks {
namespace {

void add(std::map<std::string, int64_t>& to, const std::map<std::string, int64_t>& amounts, int64_t sign) {
  for (const auto& [name, amount] : amounts) {
    const auto sum = to.try_emplace(name, 0).first;
    sum->second += sign * amount;
    if (sum->second == 0) to.erase(sum);
  }
}

}  // namespace

bool Shape::fits_in(const Shape& free) const {
  return cpu_milli <= free.cpu_milli && memory <= free.memory && disk <= free.disk && gpus <= free.gpus &&
         network_bps <= free.network_bps && std::ranges::all_of(counted, [&](const auto& need) {
           const auto have = free.counted.find(need.first);
           return have != free.counted.end() && need.second <= have->second;
         });
}

Shape& Shape::operator+=(const Shape& o) {
  cpu_milli += o.cpu_milli;
  memory += o.memory;
  disk += o.disk;
  gpus += o.gpus;
  network_bps += o.network_bps;
  add(counted, o.counted, 1);
  return *this;
}

Shape& Shape::operator-=(const Shape& o) {
  cpu_milli -= o.cpu_milli;
  memory -= o.memory;
  disk -= o.disk;
  gpus -= o.gpus;
  network_bps -= o.network_bps;
  add(counted, o.counted, -1);
  return *this;
}

int64_t gpu_share(const Shape& shape) {
  const auto share = shape.counted.find(kGpuShare);
  return share == shape.counted.end() ? 0 : share->second;
}

bool tolerates(const Marks& tolerations, const Mark& taint) {
  return std::ranges::any_of(tolerations, [&](const Mark& one) {
    return (one.key.empty() || one.key == taint.key) && (one.value.empty() || one.value == taint.value) &&
           (one.kind == TaintKind::kAny || one.kind == taint.kind);
  });
}

}  // namespace uccp::tasks
