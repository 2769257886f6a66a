// What a stream shows of the cluster's own changes. Declared in stream.h, reasons in system_topics.h.
#include <algorithm>

#include "call/wire.h"
#include "services/events/stream.h"

namespace uccp::events {
namespace {

using machine::GroupView;
using machine::ReadLevel;
using services::ChangeTopic;

// Changes that are looked at at once.
constexpr size_t kChangesAtOnce = 256;

std::string names_of(const std::vector<ChangeTopic>& topics) {
  std::string names;
  for (const ChangeTopic& topic : topics) {
    if (names.find(topic.name) == std::string::npos) names.append(names.empty() ? "" : ", ").append(topic.name);
  }
  return names;
}

Status not_allowed(const ChangeTopic& topic) {
  return Status(Code::kPermission, "PERMISSION_DENIED",
                "the topic '" + topic.name + "' is for those who have the permission '" + topic.permission +
                    "' in this namespace; ask an administrator for a role that has it");
}

}  // namespace

// A pattern means those of its topics that the caller may read, and has to mean one.
bool Streams::Stream::find_system_topics() {
  for (const std::string& pattern : request_.topics()) {
    if (!is_system(pattern)) continue;
    const ChangeTopic* refused = nullptr;
    bool found = false;
    for (const ChangeTopic& topic : owner_->change_topics_) {
      if (!matches_pattern(pattern, topic.name)) continue;
      if (!owner_->may_(*call_, topic.permission)) {
        refused = &topic;
        continue;
      }
      ChangeTopics& topics = system_[topic.group].topics;
      if (std::ranges::find(topics, &topic) == topics.end()) topics.push_back(&topic);
      found = true;
    }
    if (found) continue;
    fail(refused != nullptr
             ? not_allowed(*refused)
             : Status(Code::kNotFound, "TOPIC_NOT_FOUND",
                      "no topic of the system matches '" + pattern + "'; there are " + names_of(owner_->change_topics_))
                   .with_resource("topic", pattern));
    return false;
  }
  const bool by_offset = request_.start() == v1::SUBSCRIBE_START_TIME || request_.start() == v1::SUBSCRIBE_START_OFFSET;
  if (system_.empty() || !by_offset) return true;
  fail(Status(Code::kInvalid, "FIELD_INVALID", "topics of the system have no offsets and times to begin at")
           .with_field("start", "is LATEST or EARLIEST for topics of the system", "EARLIEST"));
  return false;
}

// Who may read what is looked at again while the stream is open.
bool Streams::Stream::may_go_on() {
  for (const auto& [id, group] : system_) {
    for (const ChangeTopic* topic : group.topics) {
      if (owner_->may_(*call_, topic->permission)) continue;
      fail(not_allowed(*topic));
      return false;
    }
  }
  return true;
}

void Streams::Stream::begin_system_groups() {
  beginning_ += system_.size();
  for (const auto& [id, group] : system_) {
    for (const ChangeTopic* topic : group.topics) owner_->env_.feed.follow(this, id, topic->feed);
    find_beginning(id, call_->read_level, &Stream::begin_system_group);
  }
}

void Streams::Stream::begin_system_group(GroupId id, const GroupView& view) {
  SystemGroup& group = system_[id];
  group.begun = true;
  if (request_.no_follow()) group.until = behind(view.applied());
  if (const auto since = since_.find(id); since != since_.end()) group.after = since->second;
  else if (since_.empty() && request_.start() != v1::SUBSCRIBE_START_EARLIEST) group.after = behind(view.applied());
  // A place that is none yet stands for the oldest change.
  if (group.after.index > 0) cursor_[id] = group.after;
}

void Streams::Stream::on_changes(GroupId id) {
  const auto group = system_.find(id);
  if (ended_ || group == system_.end()) return;
  group->second.behind = true;
  go_on();
}

// False: there is nothing to be read.
bool Streams::Stream::read_system_group() {
  const auto ready = [](const auto& entry) { return entry.second.begun && entry.second.behind; };
  const auto at = std::ranges::find_if(system_, ready);
  if (at == system_.end()) return false;
  fetching_ = true;
  at->second.behind = false;
  // The newest state of this node.
  owner_->env_.reader.read(at->first, {.kind = ReadLevel::Kind::kSession},
                           [self = shared_from_this(), id = at->first, group = at->second](Result<GroupView> view) {
                             self->owner_->env_.work.post([self, id, group, view = std::move(view)]() mutable {
                               auto read =
                                   view ? read_system(*view, group.topics, self->scope_, group.after, kChangesAtOnce)
                                        : std::unexpected(std::move(view.error()));
                               self->owner_->env_.events.post([self, id, read = std::move(read)]() mutable {
                                 self->take_system(id, std::move(read));
                               });
                             });
                           });
  return true;
}

void Streams::Stream::take_system(GroupId id, Result<SystemRead> read) {
  fetching_ = false;
  if (ended_) return;
  if (!read && read.error().reason() == "CURSOR_COMPACTED") {
    return end(v1::STREAM_END_REASON_COMPACTED, std::string(read.error().message()));
  }
  if (!read) return fail(std::move(read.error()));
  SystemGroup& group = system_[id];
  group.behind |= !read->whole;
  for (const SystemEvent& one : read->events) {
    if (one.place > group.until) break;
    group.after = cursor_[id] = one.place;
    if (!filter_.matches(one.event)) continue;
    std::string& item = begin_item(one.event.size());
    call::put_bytes(item, v1::EventDelivery::kCursorFieldNumber, encode_cursor(cursor_));
    call::put_bytes(item, v1::EventDelivery::kEventFieldNumber, one.event);
    if (!end_item(one.event.size())) return;
  }
  flush();
  group.after = cursor_[id] = std::min(std::max(group.after, read->next), std::max(group.after, group.until));
  go_on();
}

}  // namespace uccp::events
