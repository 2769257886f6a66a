// The rows of tasks inside apply: what each change of one brings with it. Pure; on the loop.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "machine/domain.h"
#include "services/work_types.h"

namespace uccp::tasks {

// A row of kTaskExpiry for a task that has ended.
std::string expiry_key(const machine::Scope& scope, const internal::v1::TaskRow& row);
// Writes a changed row and tells watchers.
void store_task(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& row,
                work::ChangeKind kind);
// Stores a new task of the command's scope, waiting for its dependencies or queued. Errors: already_exists TASK_EXISTS,
// not_found DEPENDENCY_NOT_FOUND,
// those of
// check_room() and take_actor_name().
Status accept(machine::ApplyContext& c, internal::v1::TaskRow& row);
// Among living actors of a namespace a name is one's. Errors: already_exists ACTOR_EXISTS.
Status take_actor_name(machine::ApplyContext& c, const v1::Task& task);
// Which tasks others wait for, of those between two ids: one look for many that end with one command.
class Awaited {
 public:
  using Ranges = std::map<machine::Scope, std::pair<std::string, std::string>>;
  Awaited() = default;  // any may be
  Awaited(const machine::KeyReader& state, const Ranges& ids);
  bool may_be(const machine::Scope& scope, const std::string& id) const { return all_ || ids_.contains({scope, id}); }

 private:
  bool all_ = true;  // or too many to say
  std::set<std::pair<machine::Scope, std::string>> ids_;
};
// Ends a task and everything that its end decides.
void end_task(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& row, v1::TaskStatus status,
              std::string reason, const Awaited& awaited = {});
// Ends an array of which no element is left that has not ended.
void end_if_over(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& array);
// Asks a task of the command's scope to end; what may run somewhere is stopped by the leader, who ends it at once if
// nothing does.
void stop_task(machine::ApplyContext& c, internal::v1::TaskRow& row, const std::string& reason);
// Takes from the row of a task or an element what its end has left in it.
void begin_anew(machine::ApplyContext& c, internal::v1::TaskRow& row);
Status no_such_task(std::string_view id);

}  // namespace uccp::tasks
