#include "services/discovery/traffic.h"

#include <algorithm>
#include <array>
#include <bit>

#include "call/wire.h"

namespace uccp::discovery {
namespace {

constexpr size_t kRoles = v1::DeploymentRole_ARRAYSIZE;

size_t role_of(const TrafficMember& m) { return static_cast<size_t>(m.mark.role); }

}  // namespace

RolloutMark read_mark(std::string_view deployment) {
  RolloutMark mark;
  call::WireReader reader(deployment);
  call::WireField field;
  while (reader.next(field)) {
    switch (field.number) {
      case v1::Deployment::kNameFieldNumber: mark.name = field.bytes; break;
      case v1::Deployment::kRoleFieldNumber:
        if (field.value != 0 && field.value < kRoles) mark.role = static_cast<v1::DeploymentRole>(field.value);
        break;
      case v1::Deployment::kTrafficPercentFieldNumber: mark.percent = std::bit_cast<double>(field.value); break;
      default: break;
    }
  }
  return mark;
}

std::vector<double> traffic_shares(const std::vector<TrafficMember>& members) {
  std::array<double, kRoles> percent{}, weights{};
  for (const TrafficMember& m : members) percent[role_of(m)] = std::max(percent[role_of(m)], m.mark.percent);
  double asked = 0, rest_weight = 0;
  for (const TrafficMember& m : members) {
    if (percent[role_of(m)] > 0) weights[role_of(m)] += m.weight;
    else rest_weight += m.weight;
  }
  // A role whose instances are all down leaves its share to the others.
  for (size_t role = 0; role < kRoles; ++role) asked += weights[role] > 0 ? percent[role] : 0;
  const double rest = rest_weight > 0 ? std::max(0.0, 100 - asked) : 0;
  const double whole = asked + rest;
  std::vector<double> shares;
  shares.reserve(members.size());
  for (const TrafficMember& m : members) {
    const size_t role = role_of(m);
    const bool marked = percent[role] > 0;
    const double all = marked ? weights[role] : rest_weight;
    const double part = marked ? percent[role] : rest;
    shares.push_back(all > 0 && whole > 0 ? part / whole * m.weight / all : 0);
  }
  return shares;
}

}  // namespace uccp::discovery
