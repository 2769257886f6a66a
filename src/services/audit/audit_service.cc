#include "services/audit/audit_service.h"

#include <algorithm>

#include "base/bytes.h"
#include "call/command.h"
#include "machine/machine.h"
#include "services/audit/audit_trail.h"

namespace uccp::audit {
namespace {

using call::CallPtr;

v1::AuditRecord public_record(const std::string& group, const machine::AuditRecord& record) {
  v1::AuditRecord out;
  out.set_id(group + "-" + std::to_string(record.number));
  out.mutable_time()->set_seconds(record.wall_us / 1'000'000);
  out.mutable_time()->set_nanos(static_cast<int32_t>(record.wall_us % 1'000'000) * 1000);
  out.set_principal(record.principal);
  out.set_method(record.method);
  out.set_resource(record.resource);
  out.set_outcome(record.outcome);
  out.set_namespace_(record.name_space);
  out.set_tenant(record.tenant);
  out.set_group(group);
  out.set_number(record.number);
  out.set_index(record.index.value);
  out.set_hash(to_hex(record.hash));
  return out;
}

int64_t micros_of(const google::protobuf::Timestamp& time) { return time.seconds() * 1'000'000 + time.nanos() / 1000; }

// "ScheduleTask", "TaskScheduling/ScheduleTask" and the whole name all mean one method.
bool is_method(std::string_view asked, std::string_view recorded) {
  if (asked.empty() || asked == recorded) return true;
  if (!recorded.ends_with(asked) || asked.size() >= recorded.size()) return false;
  const char before = recorded[recorded.size() - asked.size() - 1];
  return before == '/' || before == '.';
}

// Records of the system itself belong to no namespace, and are for those who see all namespaces.
bool may_see(const call::Principal& principal, const machine::AuditRecord& record) {
  if (record.tenant != principal.tenant) return false;
  return principal.namespaces.empty() ||
         std::ranges::find(principal.namespaces, record.name_space) != principal.namespaces.end();
}

}  // namespace

void AuditService::add_handlers(call::HandlerTable& handlers) {
  handlers.add("uccp.v1.Administration/SearchAudit",
               [this](const CallPtr& call, const std::string& bytes) { search(call, bytes); });
  handlers.add("uccp.v1.Administration/VerifyAudit", [this](const CallPtr& call, const std::string&) {
    read_all(call->read_level, [this, call](Result<Views> views) {
      if (!views) return call->finish(views.error());
      call->reply(verify(*views).SerializeAsString());
    });
  });
}

void AuditService::read_all(const machine::ReadLevel& level, OnViews done) { read_next(level, {}, std::move(done)); }

void AuditService::read_next(const machine::ReadLevel& level, Views views, OnViews done) {
  if (views.size() == env_.groups.size()) {
    return env_.work.post([views = std::move(views), done = std::move(done)]() mutable { done(std::move(views)); });
  }
  const GroupId group = env_.groups[views.size()].second;
  env_.reader.read(
      group, level,
      [this, level, views = std::move(views), done = std::move(done)](Result<machine::GroupView> view) mutable {
        if (!view) return done(std::unexpected(view.error()));
        views.push_back(std::move(*view));
        read_next(level, std::move(views), std::move(done));
      });
}

void AuditService::search(const CallPtr& call, const std::string& bytes) {
  auto request = call::parse_request<v1::SearchAuditRequest>(bytes);
  if (!request) return call->finish(request.error());
  auto query = call::compile_list(
      *call->method, bytes,
      {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = {call->principal.tenant, ""}});
  if (!query) return call->finish(query.error());
  read_all(call->read_level,
           [this, call, query = std::move(*query), request = std::move(*request)](Result<Views> views) {
             if (!views) return call->finish(views.error());
             auto page = page_of(*call, query, request, *views);
             if (!page) return call->finish(page.error());
             call->reply(call::encode_page(*call->method, *page));
           });
}

Result<call::Page> AuditService::page_of(const call::Call& call, const call::ListQuery& query,
                                         const v1::SearchAuditRequest& request, const Views& views) const {
  TrailWindow window;
  if (request.has_start_time()) window.start_us = micros_of(request.start_time());
  if (request.has_end_time()) window.end_us = micros_of(request.end_time());
  std::vector<Trail> trails;
  for (size_t i = 0; i < views.size(); ++i) trails.emplace_back(env_.groups[i].first, &views[i]);
  return call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
    walk_trails(trails, window, after,
                [&](std::string_view key, const std::string& group, const machine::AuditRecord& record) {
                  const bool wanted = may_see(call.principal, record) && is_method(request.method(), record.method) &&
                                      (request.principal().empty() || request.principal() == record.principal);
                  return !wanted || visit(key, public_record(group, record).SerializeAsString());
                });
  });
}

v1::VerifyAuditResponse AuditService::verify(const Views& views) const {
  v1::VerifyAuditResponse response;
  response.set_intact(true);
  for (size_t i = 0; i < views.size(); ++i) {
    v1::AuditTrail& trail = *response.add_trails();
    trail.set_group(env_.groups[i].first);
    const AuditRange range = range_of(views[i]);
    trail.set_records(range.next - range.first);
    if (range.next > range.first) {
      trail.set_first_record(range.first);
      trail.set_last_record(range.next - 1);
      const auto newest = machine::read_audit(views[i], range.next - 1, 1);
      if (!newest.empty()) trail.set_head_hash(to_hex(newest.front().hash));
    }
    const Status status = machine::verify_audit(views[i]);
    trail.set_intact(status.is_ok());
    if (status.is_ok()) continue;
    response.set_intact(false);
    trail.set_reason(status.message());
    // The message ends with the number of the record.
    const std::string& text = status.message();
    trail.set_broken_record(trail.group() + "-" + text.substr(text.find_last_of(' ') + 1));
  }
  return response;
}

}  // namespace uccp::audit
