#include "services/audit/audit_service.h"

#include <algorithm>

#include "base/bytes.h"
#include "call/command.h"
#include "machine/machine.h"
#include "services/audit/audit_anchor.h"
#include "services/audit/audit_export.h"
#include "services/audit/audit_trail.h"
#include "services/message_types.h"

namespace uccp::audit {
namespace {

using call::CallPtr;
using services::us_of;

// "ScheduleTask", "TaskScheduling/ScheduleTask" and the whole name all mean one method.
bool is_method(std::string_view asked, std::string_view recorded) {
  if (asked.empty() || asked == recorded) return true;
  if (!recorded.ends_with(asked) || asked.size() >= recorded.size()) return false;
  const char before = recorded[recorded.size() - asked.size() - 1];
  return before == '/' || before == '.';
}

}  // namespace

std::vector<services::ChangeTopic> AuditService::change_topics() const {
  std::vector<services::ChangeTopic> topics;
  for (const auto& [name, group] : env_.groups) {
    topics.push_back({.name = "$sys.audit",
                      .group = group,
                      .feed = std::string(machine::kAuditTopic),
                      .permission = "audit.read",
                      .resource_type = "uccp.v1.AuditRecord",
                      .show_audit = [name](const machine::AuditRecord& record) {
                        return services::ShownChange{"audit.recorded", record.resource,
                                                     public_record(name, record).SerializeAsString()};
                      }});
  }
  return topics;
}

void AuditService::add_handlers(call::HandlerTable& handlers) {
  handlers.add("uccp.v1.Administration/SearchAudit",
               [this](const CallPtr& call, const std::string& bytes) { search(call, bytes); });
  handlers.add_parsed<v1::ExportAuditRequest>(
      "uccp.v1.Administration/ExportAudit",
      [this](const CallPtr& call, const auto& request) { export_records(call, request.since()); });
  handlers.add_parsed<v1::VerifyAuditRequest>(
      "uccp.v1.Administration/VerifyAudit",
      [this](const CallPtr& call, const auto& request) { verify(call, request); });
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
  if (request.has_start_time()) window.start_us = us_of(request.start_time());
  if (request.has_end_time()) window.end_us = us_of(request.end_time());
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

void AuditService::export_records(const CallPtr& call, const std::string& since) {
  read_all(call->read_level, [this, call, since](Result<Views> views) {
    if (!views) return call->finish(views.error());
    std::vector<ExportedTrail> trails;
    for (size_t i = 0; i < views->size(); ++i) {
      const machine::AuditSpan span = machine::audit_span((*views)[i]);
      trails.push_back({.group = env_.groups[i].first, .view = (*views)[i], .span = span});
    }
    if (Status status = AuditExporter::start(env_.work, call, std::move(trails), since); !status.is_ok())
      call->finish(std::move(status));
  });
}

void AuditService::verify(const CallPtr& call, const v1::VerifyAuditRequest& request) {
  for (const std::string& text : request.anchors()) {
    const auto anchor = parse_anchor(text);
    const bool known =
        anchor && std::ranges::any_of(env_.groups, [&](const auto& group) { return group.first == anchor->group; });
    if (known) continue;
    return call->finish(
        Status(Code::kInvalid, "ANCHOR_INVALID", "'" + text + "' is not an anchor of a trail that is kept here")
            .with_field("anchors", "is not an anchor",
                        "core-17: and 64 hexadecimal digits, as audit export gives them"));
  }
  read_all(call->read_level, [this, call, request](Result<Views> views) {
    if (!views) return call->finish(views.error());
    v1::VerifyAuditResponse response;
    response.set_intact(true);
    for (size_t i = 0; i < views->size(); ++i) {
      v1::AuditTrail& trail = *response.add_trails();
      trail = verified(env_.groups[i].first, (*views)[i], request);
      if (!trail.intact()) response.set_intact(false);
    }
    call->reply(response.SerializeAsString());
  });
}

v1::AuditTrail AuditService::verified(const std::string& group, const machine::GroupView& view,
                                      const v1::VerifyAuditRequest& request) const {
  v1::AuditTrail trail;
  trail.set_group(group);
  const machine::AuditSpan span = machine::audit_span(view);
  trail.set_records(span.next - span.first);
  if (span.next > span.first) {
    trail.set_first_record(span.first);
    trail.set_last_record(span.next - 1);
    trail.set_head_hash(to_hex(span.head));
  }
  auto fault = machine::find_audit_fault(view);
  uint64_t anchored = span.first;
  for (const std::string& text : request.anchors()) {
    const auto anchor = parse_anchor(text);
    // Of what is no longer kept nothing can be said.
    if (anchor->group != group || anchor->number < span.first) continue;
    const auto at = machine::read_audit(view, anchor->number, 1);
    if (at.empty() || at.front().number != anchor->number) {
      if (!fault) fault = {anchor->number, "was there when the anchor was taken, and is missing"};
    } else if (at.front().hash != anchor->hash) {
      if (!fault)
        fault = {anchor->number, "is not the one that the anchor was taken of: it or one before it was replaced"};
    } else if (anchor->number >= anchored) {
      anchored = anchor->number + 1;
      trail.set_anchor(text);
    }
  }
  trail.set_records_past_anchor(span.next - std::min(anchored, span.next));
  trail.set_intact(!fault);
  if (fault) {
    const std::string id = group + "-" + std::to_string(fault->record);
    trail.set_broken_record(id);
    trail.set_reason("the record " + id + " " + fault->what);
  }
  return trail;
}

}  // namespace uccp::audit
