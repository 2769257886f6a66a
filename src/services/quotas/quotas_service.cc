#include "services/quotas/quotas_service.h"

#include <algorithm>

#include "call/command.h"
#include "call/validate.h"
#include "services/feature_types.h"
#include "services/quota_use_types.h"

namespace uccp::quotas {
namespace {

using call::CallPtr;
using v1::ResourceQuota;

Status invalid(const std::string& field, const std::string& what, const std::string& example = {}) {
  return Status(Code::kInvalid, "FIELD_INVALID", field + " " + what).with_field(field, what, example);
}

// The proto names of limits that nothing enforces.
std::string unenforced(const v1::QuotaLimits& limits) {
  std::vector<const google::protobuf::FieldDescriptor*> present;
  limits.GetReflection()->ListFields(limits, &present);
  for (const auto* field : present) {
    const auto known = [&](const auto& limit) { return limit.field == field->number(); };
    if (std::ranges::none_of(work::quota_amount_table(), known) && std::ranges::none_of(work::budget_table(), known))
      return std::string(field->json_name());
  }
  return {};
}

// What is kept for urgent tasks is a part of a hard limit of what runs.
Status check_reserve(const ResourceQuota& quota) {
  if (!quota.has_reserve()) return Status::ok();
  const v1::QuotaLimits& amounts = quota.reserve().amounts();
  for (const work::BudgetLimit& budget : work::budget_table()) {
    if (budget.get(amounts) >= 0)
      return invalid("quota.reserve.amounts." + std::string(budget.json_name), "is not of what runs");
  }
  bool any = false;
  for (const work::QuotaAmount& amount : work::quota_amount_table()) {
    const double kept = amount.get(amounts), hard = amount.get(quota.hard());
    const std::string field = "quota.reserve.amounts." + std::string(amount.json_name);
    any = any || kept >= 0;
    if (kept >= 0 && hard < 0 && quota.template_().empty())
      return invalid(field, "needs a hard limit, of which it is a part");
    if (hard >= 0 && kept > hard) return invalid(field, "is more than the hard limit");
  }
  return any ? Status::ok() : invalid("quota.reserve.amounts", "names nothing that is kept", R"({"cpu":2})");
}

}  // namespace

Status check_quota(const ResourceQuota& quota) {
  const bool plain = quota.scope() == v1::QUOTA_SCOPE_UNSPECIFIED || quota.scope() == v1::QUOTA_SCOPE_NAMESPACE ||
                     quota.scope() == v1::QUOTA_SCOPE_GLOBAL;
  if (plain && !quota.subject().empty()) return invalid("quota.subject", "must be empty for a namespace and for all");
  if (!plain && quota.subject().empty())
    return invalid("quota.subject", "must name the user, team, project or template", "search");
  const std::array<std::pair<const char*, const v1::QuotaLimits*>, 4> lists = {
      {{"hard", &quota.hard()},
       {"soft", &quota.soft()},
       {"lend", &quota.lend()},
       {"reserve.amounts", &quota.reserve().amounts()}}};
  for (const auto& [name, limits] : lists) {
    if (const std::string limit = unenforced(*limits); !limit.empty()) {
      const std::string field = std::string("quota.") + name + "." + limit;
      return Status(Code::kInvalid, "QUOTA_LIMIT_UNIMPLEMENTED",
                    field +
                        ": this limit is not built yet; those of what runs, tasksActive, storage, requestsPerSecond, "
                        "requestsPerDay, topics, gpuHours, tpuHours and cost are")
          .with_field(field, "must be absent");
    }
  }
  for (const work::BudgetLimit& budget : work::budget_table()) {
    const std::string name(budget.json_name);
    if (budget.get(quota.soft()) >= 0)
      return invalid("quota.soft." + name, "is not borrowed; it has a hard limit only");
    if (budget.get(quota.lend()) >= 0) return invalid("quota.lend." + name, "is not lent; it has a hard limit only");
  }
  if (quota.scope() == v1::QUOTA_SCOPE_USER && quota.hard().has_topics())
    return invalid("quota.hard.topics", "is counted by namespace, not by user; set it for the namespace");
  UCCP_RETURN_IF_ERROR(check_reserve(quota));
  if (quota.has_burst_duration() && quota.burst_factor() <= 1)
    return invalid("quota.burstDuration", "needs a burstFactor above 1", "1.5");
  for (const work::QuotaAmount& amount : work::quota_amount_table()) {
    const std::string name(amount.json_name);
    const double hard = amount.get(quota.hard()), soft = amount.get(quota.soft()), lend = amount.get(quota.lend());
    if (hard >= 0 && soft > hard) return invalid("quota.soft." + name, "is more than the hard limit");
    if (lend >= 0 && soft < 0) return invalid("quota.lend." + name, "needs a soft limit, of which it is a part");
    if (lend > soft) return invalid("quota.lend." + name, "is more than the soft limit");
  }
  return Status::ok();
}

void QuotasService::register_handlers(call::HandlerTable& handlers) {
  const auto raw = [&](std::string_view name, void (QuotasService::*member)(const CallPtr&, std::string)) {
    handlers.add(
        "uccp.v1.ResourceManagement/" + std::string(name),
        [this, member](const CallPtr& call, std::string request) { (this->*member)(call, std::move(request)); });
  };
  raw("SetQuota", &QuotasService::set);
  raw("ListQuotas", &QuotasService::list);
  raw("DeleteQuota", &QuotasService::remove);
  handlers.add_parsed<v1::GetQuotaRequest>("uccp.v1.ResourceManagement/GetQuota",
                                           [this](const CallPtr& call, const auto& request) { get(call, request); });
}

void QuotasService::set(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::SetQuotaRequest>(bytes);
  if (!request) return call->finish(request.error());
  ResourceQuota& quota = *request->mutable_quota();
  const std::string canonical =
      call::canonical(call::Contract::get().plan("uccp.v1.ResourceQuota"), quota.SerializeAsString()).value_or("");
  (void)quota.ParseFromString(canonical);
  if (Status status = check_quota(quota); !status.is_ok()) return call->finish(std::move(status));
  if (Status status = services::check_feature_level(env_.feature_level(), services::kSchedulingLevel);
      !status.is_ok()) {
    return call->finish(std::move(status));
  }
  if (quota.scope() == v1::QUOTA_SCOPE_UNSPECIFIED) quota.set_scope(v1::QUOTA_SCOPE_NAMESPACE);
  if (quota.namespace_().empty()) quota.set_namespace_(call->name_space);
  env_.proposer.propose(kWorkGroup, call::make_envelope(*call, bytes, "quotas.set", request->SerializeAsString()),
                        [this, call](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(applied.error());
                          ResourceQuota stored;
                          (void)stored.ParseFromString(applied->response);
                          env_.overlay(call->principal.tenant, stored);
                          call->set_header("Uccp-Session", machine::session_token({{kWorkGroup, applied->index}}));
                          call->reply(stored.SerializeAsString());
                        });
}

void QuotasService::get(const CallPtr& call, const v1::GetQuotaRequest& request) {
  ResourceQuota named;
  named.set_namespace_(request.namespace_());
  named.set_scope(request.scope());
  named.set_subject(request.subject());
  env_.reader.read(kWorkGroup, call->read_level,
                   [this, call, key = work::quota_key(named)](Result<machine::GroupView> view) {
                     if (!view) return call->finish(view.error());
                     auto quota = work::kQuotas.get(*view, work::quota_scope(call->principal.tenant), key);
                     if (!quota) return call->finish(work::no_such_quota(key));
                     env_.overlay(call->principal.tenant, *quota);
                     call->reply(quota->SerializeAsString());
                   });
}

void QuotasService::list(const CallPtr& call, std::string bytes) {
  const machine::Scope scope = work::quota_scope(call->principal.tenant);
  auto query =
      call::compile_list(*call->method, bytes, {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope});
  if (!query) return call->finish(query.error());
  env_.reader.read(kWorkGroup, call->read_level,
                   [this, call, scope, query = std::move(*query)](Result<machine::GroupView> view) {
                     if (!view) return call->finish(view.error());
                     auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
                       work::kQuotas.scan(*view, scope, "", after, [&](std::string_view key, ResourceQuota quota) {
                         if (key == after) return true;
                         if (call->name_space != "-" && quota.namespace_() != call->name_space) return true;
                         env_.overlay(call->principal.tenant, quota);
                         return visit(key, quota.SerializeAsString());
                       });
                     });
                     if (!page) return call->finish(page.error());
                     call->reply(call::encode_page(*call->method, *page));
                   });
}

void QuotasService::remove(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeleteQuotaRequest>(bytes);
  if (!request) return call->finish(request.error());
  env_.proposer.propose(kWorkGroup, call::make_envelope(*call, bytes, "quotas.delete", request->SerializeAsString()),
                        [call](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(applied.error());
                          call->reply(std::move(applied->response));
                        });
}

}  // namespace uccp::quotas
