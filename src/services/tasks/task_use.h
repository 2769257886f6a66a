// What quotas count in the replicated state: tasks that have not ended, and what is stored of them. Inside apply.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "machine/domain.h"
#include "services/quota_use_types.h"

namespace uccp::tasks {

// The task begins to count, or no longer does, as one that has not ended. Twice is once.
void count_active(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& row, bool active);
// What is stored of the task has changed.
void count_bytes(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& row);
void forget_bytes(machine::ApplyContext& c, const machine::Scope& scope, internal::v1::TaskRow& row);

// Whether each quota on the way of its user has room for another task, or for all elements of an array. Errors:
// exhausted QUOTA_TASKS_EXHAUSTED, QUOTA_STORAGE_EXHAUSTED.
Status check_room(machine::ApplyContext& c, const v1::Task& task);

// A quota with what it takes from its template.
v1::ResourceQuota with_template(const machine::KeyReader& state, const std::string& tenant, v1::ResourceQuota quota);
// The quotas that a task of the user in the scope is charged to, from the user up; without their templates.
std::vector<v1::ResourceQuota> quota_way(const machine::KeyReader& state, const machine::Scope& scope,
                                         const std::string& user);
// The sum for a quota over all that is below it.
internal::v1::TaskUse task_use(const machine::KeyReader& state, const std::string& tenant,
                               const v1::ResourceQuota& quota);

}  // namespace uccp::tasks
