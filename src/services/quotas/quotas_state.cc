#include "services/quotas/quotas_state.h"

#include <algorithm>
#include <vector>

#include "base/bytes.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"
#include "services/quota_use_types.h"

namespace uccp::quotas {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;
using services::parse;
using services::set_wall;
using v1::ResourceQuota;

Status check_etag(const std::optional<ResourceQuota>& quota, const std::string& if_match) {
  if (if_match.empty() || (quota && quota->etag() == if_match)) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH", "the quota changed since it was read; read it again");
}

// The quotas that have this one as their parent, the one that is being set left out.
std::vector<ResourceQuota> children_of(ApplyContext& c, const Scope& scope, const std::string& key,
                                       const std::string& but) {
  std::vector<ResourceQuota> children;
  work::kQuotas.scan(c.state(), scope, "", "", [&](std::string_view other, const ResourceQuota& quota) {
    if (other != but && work::quota_parent(quota) == key) children.push_back(quota);
    return true;
  });
  return children;
}

// A parent is named, there, and not below the quota itself.
Status check_parent(ApplyContext& c, const Scope& scope, const ResourceQuota& quota, const std::string& key) {
  if (!quota.parent().empty() && !work::kQuotas.contains(c.state(), scope, quota.parent())) {
    return Status(Code::kNotFound, "QUOTA_PARENT_NOT_FOUND",
                  "there is no quota " + quota.parent() + "; set it first, as scope:subject such as team:search")
        .with_field("quota.parent", "no such quota", "team:search");
  }
  std::string way = key;
  for (std::string above = work::quota_parent(quota); !above.empty();) {
    way += " -> " + above;
    if (above == key) {
      return Status(Code::kFailedPrecondition, "QUOTA_CYCLE", "the quota would be its own parent: " + way)
          .with_field("quota.parent", "closes a cycle");
    }
    const auto row = work::kQuotas.get(c.state(), scope, above);
    if (!row) break;
    above = work::quota_parent(*row);
  }
  return Status::ok();
}

// What a quota may count on: its soft limit, or else its hard one.
template <typename Get>
double own_of(const ResourceQuota& quota, const Get& get) {
  return get(quota.soft()) >= 0 ? get(quota.soft()) : std::max(0.0, get(quota.hard()));
}

// Limits fit into the parent's, and what the children may count on adds up to no more than it has.
Status check_limits(ApplyContext& c, const Scope& scope, const ResourceQuota& quota, const std::string& key) {
  const auto parent = work::kQuotas.get(c.state(), scope, work::quota_parent(quota));
  if (!parent) return Status::ok();
  const auto siblings = children_of(c, scope, work::quota_parent(quota), key);
  for (const work::QuotaAmount& amount : work::quota_amount_table()) {
    const double above = amount.get(parent->hard());
    const double own = amount.get(quota.hard());
    if (above < 0) continue;
    const std::string field = "quota.hard." + std::string(amount.json_name);
    const auto invalid = [&](const std::string& what) {
      return Status(Code::kInvalid, "QUOTA_EXCEEDS_PARENT", field + ": " + what).with_field(field, what);
    };
    if (own > above)
      return invalid("is more than " + work::quota_parent(quota) + " has; raise that first, or ask for less");
    double sum = own_of(quota, amount.get);
    for (const ResourceQuota& sibling : siblings) sum += own_of(sibling, amount.get);
    if (sum > above && !parent->overcommit()) {
      return invalid("with its siblings adds up to more than " + work::quota_parent(quota) +
                     " has; lower soft limits, or allow overcommit there");
    }
  }
  return Status::ok();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> QuotasState::commands() {
  return {{"set", set}, {"delete", remove}, {"charge", charge}, {"count_requests", count_requests}};
}

ApplyResult QuotasState::set(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::SetQuotaRequest>(payload);
  ResourceQuota quota = request.quota();
  const Scope scope = work::quota_scope(c.scope().tenant);
  const std::string key = work::quota_key(quota);
  const auto known = work::kQuotas.get(c.state(), scope, key);
  UCCP_RETURN_IF_ERROR(check_etag(known, request.if_match()));
  UCCP_RETURN_IF_ERROR(check_parent(c, scope, quota, key));
  if (!quota.template_().empty() && !work::kQuotas.contains(c.state(), scope, "template:" + quota.template_())) {
    return fail(
        Status(Code::kNotFound, "QUOTA_TEMPLATE_NOT_FOUND",
               "there is no template " + quota.template_() + "; set a quota of the scope TEMPLATE with that subject")
            .with_field("quota.template", "no such template"));
  }
  UCCP_RETURN_IF_ERROR(check_limits(c, scope, quota, key));
  if (known) *quota.mutable_create_time() = known->create_time();
  else set_wall(quota.mutable_create_time(), c.envelope().wall);
  set_wall(quota.mutable_update_time(), c.envelope().wall);
  quota.set_etag(std::to_string(c.index().value));
  if (request.validate_only()) return machine::stable_bytes(quota);
  work::kQuotas.put(c.state(), scope, key, quota);
  c.emit_in(scope, work::kQuotaTopic, key, static_cast<uint8_t>(work::ChangeKind::kUpdated),
            machine::stable_bytes(quota));
  return machine::stable_bytes(quota);
}

// Months before the one that is charged are not asked for any more.
ApplyResult QuotasState::charge(ApplyContext& c, std::string_view payload) {
  constexpr size_t kForgottenPerCharge = 1000;
  const Scope scope = work::quota_scope(c.scope().tenant);
  std::string newest;
  for (const auto& use : parse<internal::v1::ChargeCommand>(payload).uses()) {
    newest = std::max(newest, use.month());
    const std::string key = ByteWriter().key_part(use.month()).key_part(use.namespace_()).key_part(use.user()).take();
    internal::v1::MonthUse sum = work::kMonthUse.get(c.state(), scope, key).value_or(use);
    if (work::kMonthUse.contains(c.state(), scope, key)) {
      sum.set_gpu_ms(sum.gpu_ms() + use.gpu_ms());
      sum.set_tpu_ms(sum.tpu_ms() + use.tpu_ms());
      sum.set_cost_millionths(sum.cost_millionths() + use.cost_millionths());
    }
    work::kMonthUse.put(c.state(), scope, key, sum);
  }
  std::vector<std::string> old;
  work::kMonthUse.scan(c.state(), scope, "", "", [&](std::string_view key, const internal::v1::MonthUse& use) {
    if (use.month() >= newest || old.size() >= kForgottenPerCharge) return false;
    old.emplace_back(key);
    return true;
  });
  for (const std::string& key : old) work::kMonthUse.erase(c.state(), scope, key);
  return std::string();
}

// Days before the one that is counted are not asked for any more.
ApplyResult QuotasState::count_requests(ApplyContext& c, std::string_view payload) {
  constexpr size_t kForgottenPerCount = 1000;
  const Scope scope = work::quota_scope(c.scope().tenant);
  const auto command = parse<internal::v1::CountRequestsCommand>(payload);
  std::string newest;
  for (const internal::v1::CountedRequests& count : command.counts()) {
    newest = std::max(newest, count.day());
    const std::string key = work::request_use_key(count.day(), count.quota());
    internal::v1::RequestUse use = work::kRequestUse.get(c.state(), scope, key).value_or(internal::v1::RequestUse());
    use.set_day(count.day());
    use.set_quota(count.quota());
    use.set_calls(use.calls() + count.calls());
    auto& nodes = *use.mutable_nodes();
    for (int i = nodes.size() - 1; i >= 0; --i) {
      const bool old = c.now_ms() - nodes[i].at_ms() > work::kRequestRateMs;
      if (old || nodes[i].node() == command.node()) nodes.DeleteSubrange(i, 1);
    }
    internal::v1::NodeRequests& node = *use.add_nodes();
    node.set_node(command.node());
    node.set_rate_milli(count.rate_milli());
    node.set_at_ms(c.now_ms());
    work::kRequestUse.put(c.state(), scope, key, use);
  }
  std::vector<std::string> old;
  work::kRequestUse.scan(c.state(), scope, "", "", [&](std::string_view key, const internal::v1::RequestUse& use) {
    if (use.day() >= newest || old.size() >= kForgottenPerCount) return false;
    old.emplace_back(key);
    return true;
  });
  for (const std::string& key : old) work::kRequestUse.erase(c.state(), scope, key);
  return std::string();
}

ApplyResult QuotasState::remove(ApplyContext& c, std::string_view payload) {
  const auto request = parse<v1::DeleteQuotaRequest>(payload);
  const Scope scope = work::quota_scope(c.scope().tenant);
  ResourceQuota named;
  named.set_namespace_(request.namespace_());
  named.set_scope(request.scope());
  named.set_subject(request.subject());
  const std::string key = work::quota_key(named);
  const auto known = work::kQuotas.get(c.state(), scope, key);
  if (!known) return fail(work::no_such_quota(key));
  UCCP_RETURN_IF_ERROR(check_etag(known, request.if_match()));
  std::string user;
  work::kQuotas.scan(c.state(), scope, "", "", [&](std::string_view other, const ResourceQuota& quota) {
    if (quota.parent() == key || "template:" + quota.template_() == key) user = other;
    return user.empty();
  });
  if (!user.empty()) {
    return fail(Code::kFailedPrecondition, "QUOTA_IN_USE",
                "the quota " + key + " is the parent or template of " + user + "; change or delete that first");
  }
  work::kQuotas.erase(c.state(), scope, key);
  c.emit_in(scope, work::kQuotaTopic, key, static_cast<uint8_t>(work::ChangeKind::kRemoved),
            machine::stable_bytes(*known));
  return machine::stable_bytes(v1::DeleteQuotaResponse());
}

}  // namespace uccp::quotas
