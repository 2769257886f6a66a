#include "services/tasks/topic_quotas.h"

#include <algorithm>

#include "services/tasks/task_use.h"

namespace uccp::tasks {

std::vector<std::string> namespaces_of(const machine::KeyReader& work, const std::string& tenant,
                                       const v1::ResourceQuota& quota) {
  if (quota.scope() == v1::QUOTA_SCOPE_GLOBAL) return {};
  if (quota.scope() == v1::QUOTA_SCOPE_NAMESPACE) return {quota.namespace_()};
  const std::string key = work::quota_key(quota);
  std::vector<std::string> names;
  work::kQuotas.scan(
      work, work::quota_scope(tenant), "namespace:", "", [&](std::string_view, const v1::ResourceQuota& one) {
        const auto way = quota_way(work, {tenant, one.namespace_()}, "");
        const bool below =
            std::ranges::any_of(way, [&](const v1::ResourceQuota& above) { return work::quota_key(above) == key; });
        if (below) names.push_back(one.namespace_());
        return true;
      });
  // A list that is empty would mean all of the tenant.
  if (names.empty()) names.push_back(quota.namespace_());
  return names;
}

std::vector<internal::v1::TopicQuota> topic_quotas(const machine::KeyReader& work, const machine::Scope& scope) {
  std::vector<internal::v1::TopicQuota> quotas;
  for (const v1::ResourceQuota& stored : quota_way(work, scope, "")) {
    const v1::ResourceQuota quota = with_template(work, scope.tenant, stored);
    if (!quota.hard().has_topics()) continue;
    internal::v1::TopicQuota& one = quotas.emplace_back();
    one.set_quota(work::quota_key(quota));
    one.set_topics_max(static_cast<uint64_t>(std::max(0, quota.hard().topics())));
    for (std::string& name : namespaces_of(work, scope.tenant, quota)) one.add_namespaces(std::move(name));
  }
  return quotas;
}

}  // namespace uccp::tasks
