// Changes of the cluster's own resources as events of topics "$sys.NAME": what a domain gives for it. The topics are
// views of what the domain emits anyway, or of the audit trail; nothing is stored for them.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "machine/machine.h"

namespace uccp::services {

// One change as it is shown.
struct ShownChange {
  std::string type;      // "task.updated"
  std::string key;       // of the resource
  std::string resource;  // serialized, of ChangeTopic::resource_type
};

struct ChangeTopic {
  std::string name;  // "$sys.tasks"
  GroupId group;
  // Topic of the changes that it shows; of the audit trail, what tells that there is more of it.
  std::string feed;
  // False: the resources belong to no tenant.
  bool scoped = true;
  std::string permission;     // of those who may read the resources otherwise
  std::string resource_type;  // "uccp.v1.Task"
  // Exactly one of the two is set. Nothing: the change is not shown. Any thread; must outlive the event bus's use.
  std::function<std::optional<ShownChange>(const machine::Change&)> show;
  std::function<ShownChange(const machine::AuditRecord&)> show_audit;
};

// "task.updated" of "TASK_EVENT_KIND_UPDATED".
inline std::string change_type(std::string_view resource, std::string_view kind) {
  constexpr std::string_view kInfix = "_EVENT_KIND_";
  const size_t at = kind.find(kInfix);
  std::string type(at == std::string_view::npos ? kind : kind.substr(at + kInfix.size()));
  std::ranges::transform(type, type.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::string(resource) + "." + type;
}

}  // namespace uccp::services
