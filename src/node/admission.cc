#include "node/admission.h"

namespace uccp::node {

std::optional<Admission::Room> Admission::admit(std::string_view tenant, size_t bytes, bool late) {
  if (!has_room(tenant, late)) return std::nullopt;
  auto at = tenants_.find(tenant);
  if (at == tenants_.end()) at = tenants_.emplace(tenant, Use()).first;
  for (Use* use : {&all_, &at->second}) {
    ++use->entries;
    use->bytes += bytes;
  }
  return Room(*this, at, bytes);
}

bool Admission::has_room(std::string_view tenant, bool late) const {
  if (tenant.empty()) {
    const auto with_reserve = [this](size_t limit) { return limit + limit * limits_.system_reserve_percent / 100; };
    return all_.entries < with_reserve(limits_.entries_max) && all_.bytes < with_reserve(limits_.bytes_max);
  }
  if (all_.entries >= limits_.entries_max || all_.bytes >= limits_.bytes_max) return false;
  const auto at = tenants_.find(tenant);
  if (at == tenants_.end()) return true;
  const Use& own = at->second;
  if (late && own.entries * tenants_.size() >= all_.entries) return false;
  return own.entries < kTenantShare * (limits_.entries_max - all_.entries) &&
         own.bytes < kTenantShare * (limits_.bytes_max - all_.bytes);
}

void Admission::leave(Tenants::iterator at, size_t bytes) {
  for (Use* use : {&all_, &at->second}) {
    --use->entries;
    use->bytes -= bytes;
  }
  if (at->second.entries == 0) tenants_.erase(at);
}

}  // namespace uccp::node
