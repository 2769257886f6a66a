#include "services/audit/audit_export.h"

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "services/audit/audit_anchor.h"
#include "services/message_types.h"

namespace uccp::audit {
namespace {

constexpr size_t kChunk = 256;
constexpr size_t kQueuedBytesMax = 1u << 20;

Status no_cursor() {
  return Status(Code::kInvalid, "CURSOR_INVALID", "since is not the cursor of an item of this method")
      .with_field("since", "is not a cursor of an export", "core-17.work-3");
}

}  // namespace

v1::AuditRecord public_record(const std::string& group, const machine::AuditRecord& record) {
  v1::AuditRecord out;
  out.set_id(group + "-" + std::to_string(record.number));
  services::set_wall(out.mutable_time(), {record.wall_us});
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

// Records of the system itself belong to no namespace, and are for those who see all namespaces.
bool may_see(const call::Principal& principal, const machine::AuditRecord& record) {
  if (record.tenant != principal.tenant) return false;
  return principal.namespaces.empty() ||
         std::ranges::find(principal.namespaces, record.name_space) != principal.namespaces.end();
}

std::string anchor_of(const std::string& group, const machine::AuditSpan& span) {
  if (span.next == span.first) return {};
  return to_text({group, span.next - 1, span.head});
}

Status AuditExporter::start(Executor& work, const call::CallPtr& call, std::vector<ExportedTrail> trails,
                            const std::string& since) {
  const std::shared_ptr<AuditExporter> exporter(new AuditExporter(work, call, std::move(trails)));
  for (ExportedTrail& trail : exporter->trails_) trail.next = trail.span.first;
  if (!since.empty()) UCCP_RETURN_IF_ERROR(exporter->go_to(since));
  call->keep(exporter);
  call->on_drain([weak = exporter->weak_from_this(), &work] {
    work.post([weak] {
      if (const auto self = weak.lock()) self->pump();
    });
  });
  exporter->pump();
  return Status::ok();
}

// "core-17.work-3": the record of each trail that comes next.
std::string AuditExporter::cursor() const {
  std::string out;
  for (const ExportedTrail& trail : trails_) {
    out.append(out.empty() ? "" : ".").append(trail.group).append("-").append(std::to_string(trail.next));
  }
  return out;
}

Status AuditExporter::go_to(const std::string& since) {
  std::string_view left = since;
  for (ExportedTrail& trail : trails_) {
    const std::string name = trail.group + "-";
    if (!left.starts_with(name)) return no_cursor();
    left.remove_prefix(name.size());
    const auto [end, error] = std::from_chars(left.data(), left.data() + left.size(), trail.next);
    if (error != std::errc()) return no_cursor();
    left.remove_prefix(static_cast<size_t>(end - left.data()));
    if (left.starts_with(".")) left.remove_prefix(1);
    if (trail.next < trail.span.first) {
      return Status(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                    "records of " + trail.group + " before " + std::to_string(trail.span.first) +
                        " are no longer kept, and the cursor is at " + std::to_string(trail.next) +
                        "; export from the beginning");
    }
  }
  return left.empty() ? Status::ok() : no_cursor();
}

void AuditExporter::pump() {
  const call::CallPtr call = call_.lock();
  while (call != nullptr && !call->finished()) {
    if (at_ == trails_.size()) return end(call);
    ExportedTrail& trail = trails_[at_];
    const auto records = machine::read_audit(trail.view, trail.next, kChunk);
    for (const machine::AuditRecord& record : records) {
      if (call->sink->queued_bytes() > kQueuedBytesMax) return;  // on_drain goes on
      trail.next = record.number + 1;
      if (!may_see(call->principal, record)) continue;
      v1::AuditExport item;
      *item.mutable_record() = public_record(trail.group, record);
      item.set_cursor(cursor());
      call->send(item.SerializeAsString());
    }
    if (records.empty()) ++at_;
  }
}

void AuditExporter::end(const call::CallPtr& call) {
  v1::AuditExport item;
  item.set_cursor(cursor());
  item.mutable_end()->set_reason(v1::STREAM_END_REASON_CAUGHT_UP);
  item.mutable_end()->set_message("what there was at the start is sent; go on from the cursor for what came later");
  for (const ExportedTrail& trail : trails_) {
    if (std::string anchor = anchor_of(trail.group, trail.span); !anchor.empty()) item.add_anchors(std::move(anchor));
  }
  call->send(item.SerializeAsString());
  call->finish(Status::ok());
}

}  // namespace uccp::audit
