// What may be said of a topic: defaults, bounds, names and patterns. Declared in topics_state.h.
#include <algorithm>
#include <array>

#include "services/events/event_schema.h"
#include "services/events/topics_state.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using services::ms_of;

constexpr int64_t kDedupWindowDefaultS = 600;
constexpr int32_t kPartitionsDefault = 1;
constexpr int64_t kRetentionDefaultS = 7 * 24 * 3600;
constexpr int64_t kTombstoneRetentionDefaultS = 24 * 3600;

// Fields of a topic that an update may name.
constexpr auto kChangeable = std::to_array<std::string_view>(
    {"partitions", "retention", "retention_bytes", "retention_events", "message_bytes_max", "message_ttl",
     "dedup_window", "labels", "annotations", "schema", "tombstone_retention"});

Status in_topic(const Result<std::shared_ptr<const CompiledSchema>>& schema) {
  return schema ? Status::ok()
                : Status(schema.error()).with_field("topic.schema.definition", "cannot be used as a schema");
}

Status check_bounds(const v1::Topic& topic, const TopicLimits& limits) {
  if (topic.partitions() > limits.partitions_max) {
    return Status(Code::kInvalid, "FIELD_INVALID", "the topic has more partitions than bus_partitions_max allows")
        .with_field("topic.partitions", "is more than " + std::to_string(limits.partitions_max), "4");
  }
  if (topic.message_bytes_max() > limits.message_bytes_max) {
    return Status(Code::kInvalid, "FIELD_INVALID",
                  "the topic would take larger events than bus_message_bytes_max allows")
        .with_field("topic.messageBytesMax", "is more than " + std::to_string(limits.message_bytes_max), "65536");
  }
  if (topic.has_schema()) UCCP_RETURN_IF_ERROR(in_topic(CompiledSchema::make(topic.schema())));
  if (topic.compacted() && topic.persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL) {
    return Status(Code::kInvalid, "FIELD_INVALID", "an ephemeral topic keeps nothing, so there is nothing to compact")
        .with_field("topic.compacted", "is not for ephemeral topics; leave it out");
  }
  if (topic.compacted() && topic.retention_events() != 0) {
    return Status(Code::kInvalid, "FIELD_INVALID",
                  "a compacted topic keeps the newest event of each key, whatever their number")
        .with_field("topic.retentionEvents", "is not for compacted topics; leave it out");
  }
  const bool keeps = topic.has_retention() || topic.retention_bytes() != 0 || topic.retention_events() != 0;
  if (keeps && topic.persistence() == v1::TOPIC_PERSISTENCE_EPHEMERAL) {
    return Status(Code::kInvalid, "FIELD_INVALID", "an ephemeral topic keeps nothing, so it has no retention")
        .with_field("topic.retention", "is not for ephemeral topics; leave it out");
  }
  return Status::ok();
}

}  // namespace

Result<v1::Topic> with_defaults(v1::Topic topic, const TopicLimits& limits) {
  if (topic.partitions() == 0) topic.set_partitions(kPartitionsDefault);
  if (topic.persistence() == v1::TOPIC_PERSISTENCE_UNSPECIFIED) topic.set_persistence(v1::TOPIC_PERSISTENCE_PERSISTENT);
  if (!topic.has_dedup_window()) topic.mutable_dedup_window()->set_seconds(kDedupWindowDefaultS);
  if (topic.message_bytes_max() == 0) topic.set_message_bytes_max(limits.message_bytes_max);
  UCCP_RETURN_IF_ERROR(check_bounds(topic, limits));
  if (topic.has_tombstone_retention() && !topic.compacted()) {
    return fail(Status(Code::kInvalid, "FIELD_INVALID", "only compacted topics have events that say a key is gone")
                    .with_field("topic.tombstoneRetention", "is for compacted topics; leave it out"));
  }
  if (topic.compacted() && !topic.has_tombstone_retention()) {
    topic.mutable_tombstone_retention()->set_seconds(kTombstoneRetentionDefaultS);
  }
  const bool limited = topic.persistence() == v1::TOPIC_PERSISTENCE_PERSISTENT && !topic.compacted();
  if (limited && !topic.has_retention()) topic.mutable_retention()->set_seconds(kRetentionDefaultS);
  return topic;
}

Status check_update(const v1::UpdateTopicRequest& request, const TopicLimits& limits, std::vector<std::string>& paths) {
  const auto* descriptor = v1::Topic::descriptor();
  const auto* reflection = v1::Topic::GetReflection();
  for (const std::string& name : request.update_mask().paths()) {
    const auto* field = descriptor->FindFieldByName(name);
    if (field == nullptr) field = descriptor->FindFieldByCamelcaseName(name);
    if (field == nullptr || std::ranges::find(kChangeable, field->name()) == kChangeable.end()) {
      return Status(Code::kInvalid, "FIELD_INVALID", "the update mask names '" + name + "', which cannot be changed")
          .with_field("updateMask", "names '" + name + "', which is unknown, immutable or set by the server", "labels");
    }
    paths.push_back(field->name());
  }
  if (paths.empty()) {
    for (const std::string_view name : kChangeable) {
      const auto* field = descriptor->FindFieldByName(std::string(name));
      const bool present = field->is_repeated() ? reflection->FieldSize(request.topic(), field) > 0
                                                : reflection->HasField(request.topic(), field);
      if (present) paths.emplace_back(name);
    }
  }
  for (const std::string& path : paths) {
    const auto* field = descriptor->FindFieldByName(path);
    // A topic always has these.
    const bool needed =
        path == "partitions" || path == "message_bytes_max" || path == "dedup_window" || path == "retention";
    if (needed && !reflection->HasField(request.topic(), field)) {
      return Status(Code::kInvalid, "FIELD_INVALID", "the update would clear " + path + ", which every topic has")
          .with_field("topic." + field->camelcase_name(), "cannot be cleared; give a value");
    }
  }
  return check_bounds(request.topic(), limits);
}

internal::v1::BusSettings settings_of(const v1::Topic& topic) {
  internal::v1::BusSettings settings;
  settings.set_retention_ms(ms_of(topic.retention()));
  settings.set_retention_bytes(topic.retention_bytes());
  settings.set_retention_events(topic.retention_events());
  settings.set_compacted(topic.compacted());
  settings.set_dedup_window_ms(ms_of(topic.dedup_window()));
  settings.set_tombstone_retention_ms(ms_of(topic.tombstone_retention()));
  return settings;
}

bool matches_pattern(std::string_view pattern, std::string_view name) {
  while (true) {
    if (pattern == ">") return !name.empty();
    const size_t dot = pattern.find('.');
    const size_t name_dot = name.find('.');
    const std::string_view part = pattern.substr(0, dot);
    if (name.empty() || (part != "*" && part != name.substr(0, name_dot))) return false;
    const bool last = dot == std::string_view::npos;
    const bool name_last = name_dot == std::string_view::npos;
    if (last || name_last) return last && name_last;
    pattern.remove_prefix(dot + 1);
    name.remove_prefix(name_dot + 1);
  }
}

}  // namespace uccp::events
