#include "call/pipeline/tenant_loads.h"

namespace uccp::call {

std::shared_ptr<TenantLoad> TenantLoads::of(const std::string& tenant) {
  std::lock_guard lock(mutex_);
  if (tenants_.size() >= kTenantsMax && !tenants_.contains(tenant))
    std::erase_if(tenants_, [](const auto& one) { return one.second->working.load() <= 0; });
  std::shared_ptr<TenantLoad>& load = tenants_[tenant];
  if (load == nullptr) load = std::make_shared<TenantLoad>();
  return load;
}

}  // namespace uccp::call
