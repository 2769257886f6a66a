// Whether another attempt follows one that has ended. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "services/work_types.h"
#include "uccp/internal/v1/agent.pb.h"

namespace uccp::tasks {

// False for what was no fault of the task: a lost worker, a preemption, a fault of the worker itself.
bool costs_a_retry(const internal::v1::AttemptOutcome& outcome);

// What the task would be if no attempt followed.
v1::TaskStatus status_of(const internal::v1::AttemptOutcome& outcome, const internal::v1::TaskRow& row);

struct RetryDecision {
  bool again = false;
  std::string refused_by;  // the part of its retry policy that rules out an attempt which others would allow
};
// `next_ms`: machine time at which the next attempt would begin.
RetryDecision decide_retry(const internal::v1::AttemptOutcome& outcome, const internal::v1::TaskRow& row,
                           v1::TaskStatus status, int64_t next_ms);

// A service that ran so long has come up: its pauses begin anew.
// Tasks of these types have no time limit of their own, and are started again when they fail.
inline bool runs_on(v1::TaskType type) { return type == v1::TASK_TYPE_SERVICE || type == v1::TASK_TYPE_STREAMING; }
inline constexpr int64_t kServiceSteadyMs = 60'000;
// How long an attempt ran, by the clock of its worker; 0 if it never started.
int64_t ran_ms(const internal::v1::AttemptOutcome& outcome);

}  // namespace uccp::tasks
