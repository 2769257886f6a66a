#include "services/events/system_topics.h"

#include <algorithm>

#include "call/contract.h"
#include "call/json_codec.h"
#include "services/events/json_value.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using machine::GroupView;
using services::ChangeTopic;
using services::ShownChange;

constexpr uint32_t kAuditPlace = UINT32_MAX - 1;

// The number of the first record of the trail behind the log index; records are in the order of the log.
uint64_t first_record_behind(const GroupView& view, const machine::AuditSpan& span, uint64_t index) {
  uint64_t low = span.first, high = span.next;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    const auto record = machine::read_audit(view, middle, 1);
    if (!record.empty() && record.front().index.value <= index) low = middle + 1;
    else high = middle;
  }
  return low;
}

Result<SystemEvent> make_event(const ChangeTopic& topic, LogPlace place, ShownChange shown) {
  UCCP_TRY(const std::string json, call::wire_to_json(call::Contract::get().plan(topic.resource_type), shown.resource));
  UCCP_TRY(auto value, parse_json(json));
  v1::Event event;
  event.set_id("chg_" + std::to_string(topic.group.value) + "_" + std::to_string(place.index) + "_" +
               std::to_string(place.batch));
  event.set_topic(topic.name);
  event.set_type(std::move(shown.type));
  event.set_key(std::move(shown.key));
  *event.mutable_json() = std::move(value);
  event.set_offset(place.index);
  return SystemEvent{place, event.SerializeAsString()};
}

// One of the sequences that a group has: how far it was read, and whether there is more.
struct Part {
  std::vector<SystemEvent> events;
  bool whole = true;
  LogPlace last;  // if it is not whole
};

bool sees(const ChangeTopic& topic, const machine::Scope& scope, const std::string& tenant,
          const std::string& name_space) {
  return !topic.scoped || (tenant == scope.tenant && name_space == scope.name_space);
}

Status read_changes(const GroupView& view, const ChangeTopics& topics, const machine::Scope& scope, LogPlace after,
                    size_t count_max, Part& out) {
  // Of an entry that was read in part the rest is still to come.
  const bool entry_is_over = after.batch >= kAuditPlace - 1;
  const LogIndex since =
      after.index == 0 ? machine::changes_floor(view) : LogIndex(entry_is_over ? after.index : after.index - 1);
  UCCP_TRY(const auto changes, machine::read_changes(view, since, count_max));
  for (const machine::Change& change : changes) {
    const LogPlace place{change.index.value, change.sequence, 0};
    if (place <= after) continue;
    for (const ChangeTopic* topic : topics) {
      if (!topic->show || topic->feed != change.topic) continue;
      if (!sees(*topic, scope, change.scope.tenant, change.scope.name_space)) continue;
      auto shown = topic->show(change);
      if (!shown) continue;
      UCCP_TRY(auto event, make_event(*topic, place, std::move(*shown)));
      out.events.push_back(std::move(event));
    }
  }
  out.whole = changes.size() < count_max;
  if (!changes.empty()) out.last = {changes.back().index.value, kAuditPlace - 1, 0};
  return Status::ok();
}

Status read_trail(const GroupView& view, const ChangeTopic& topic, const machine::Scope& scope, LogPlace after,
                  size_t count_max, Part& out) {
  const machine::AuditSpan span = machine::audit_span(view);
  const bool entry_is_over = after.batch >= kAuditPlace || after.index == 0;
  const uint64_t first = first_record_behind(view, span, entry_is_over ? after.index : after.index - 1);
  // Records before the first one that is left may have been behind the place.
  if (after.index != 0 && first == span.first && span.first > 0) {
    const auto oldest = machine::read_audit(view, first, 1);
    if (!oldest.empty() && oldest.front().index.value > after.index + 1) {
      return Status(Code::kFailedPrecondition, "CURSOR_COMPACTED",
                    "records of the audit trail behind " + std::to_string(after.index) +
                        " are no longer kept; begin again with start EARLIEST, or search the trail");
    }
  }
  const auto records = machine::read_audit(view, first, count_max);
  for (const machine::AuditRecord& record : records) {
    if (!sees(topic, scope, record.tenant, record.name_space)) continue;
    const LogPlace place{record.index.value, kAuditPlace, 0};
    UCCP_TRY(auto event, make_event(topic, place, topic.show_audit(record)));
    out.events.push_back(std::move(event));
  }
  out.whole = records.size() < count_max;
  if (!records.empty()) out.last = {records.back().index.value, kAuditPlace, 0};
  return Status::ok();
}

}  // namespace

Result<SystemRead> read_system(const GroupView& view, const ChangeTopics& topics, const machine::Scope& scope,
                               LogPlace after, size_t count_max) {
  std::vector<Part> parts;
  if (std::ranges::any_of(topics, [](const ChangeTopic* topic) { return static_cast<bool>(topic->show); })) {
    UCCP_RETURN_IF_ERROR(read_changes(view, topics, scope, after, count_max, parts.emplace_back()));
  }
  for (const ChangeTopic* topic : topics) {
    if (!topic->show_audit) continue;
    UCCP_RETURN_IF_ERROR(read_trail(view, *topic, scope, after, count_max, parts.emplace_back()));
  }
  SystemRead out;
  // No further than each part was read.
  out.next = std::max(after, behind(view.applied()));
  for (const Part& part : parts) {
    if (part.whole) continue;
    out.whole = false;
    out.next = std::min(out.next, part.last);
  }
  for (Part& part : parts) {
    for (SystemEvent& event : part.events) {
      if (event.place <= out.next) out.events.push_back(std::move(event));
    }
  }
  std::ranges::sort(out.events, {}, &SystemEvent::place);
  return out;
}

}  // namespace uccp::events
