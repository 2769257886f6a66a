// Leader's side of tasks that make tasks: when a CRON task fires next, which events have come for an EVENT task, which
// workers a SYSTEM task has no service on.
//
// Loop thread only. Memory of the leader, made anew from the rows. It only proposes: what becomes of a fire is decided
// in apply, where a repeat by another leader counts for nothing.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"
#include "services/tasks/cron.h"
#include "services/tasks/shapes.h"
#include "services/work_types.h"
#include "uccp/v1/events.pb.h"

namespace uccp::tasks {

class TaskMakers {
 public:
  // One event, and what to call when it is dealt with. Any thread.
  using OnEvent = std::function<void(v1::EventDelivery, std::function<void()> taken)>;
  using OnEventsEnd = std::function<void(Status)>;
  // Opens a stream of events for a task; it ends when what this answers is let go of.
  using OpenEvents = std::function<std::shared_ptr<void>(const TaskRef&, v1::SubscribeRequest, OnEvent, OnEventsEnd)>;

  struct Environment {
    const Clock& clock;
    machine::Proposer& proposer;
    MetricsRegistry& metrics;
    std::function<machine::GroupView()> view;  // newest applied state of the work group
    Executor& loop;
    OpenEvents open_events;  // empty: there is no bus
  };
  explicit TaskMakers(Environment environment) : env_(std::move(environment)) {}

  // A row as it is now; nothing: it is gone. Of all tasks that have not ended, and of those that end.
  void track(const TaskRef& ref, const internal::v1::TaskRow* row);
  void workers_changed() { dirty_ = true; }
  // Fires what is due.
  void tick();
  void clear();
  // Why the task is where it is, in one sentence.
  static std::string explain(const v1::Task& task);

 private:
  struct Maker {
    v1::Task task;
    std::optional<CronSchedule> cron;
    int64_t next_us = 0;   // 0: not known to fire
    int32_t left_out = 0;  // missed times that nothing is made for, up to this one
    int64_t missed_us = 0;
    bool busy = false;  // a fire is under way
    // Of EVENT tasks. What has come and made no task yet, the oldest first.
    struct Waiting {
      v1::EventDelivery delivery;
      std::function<void()> taken;
    };
    std::shared_ptr<void> events;
    uint64_t stream = 0;  // which of them: what an earlier one says is nothing any more
    std::deque<Waiting> waiting;
    BootTime open_at;  // not before
  };
  int64_t oldest_us(const v1::Schedule& schedule) const;
  void plan(Maker& maker, int64_t last_fire);
  void fire(const TaskRef& ref, Maker& maker, internal::v1::FireCommand command);
  void fire_cron(const TaskRef& ref, Maker& maker, int64_t now_us);
  void open_stream(const TaskRef& ref, Maker& maker);
  void fire_event(const TaskRef& ref, Maker& maker);
  void keep_system(const TaskRef& ref, Maker& maker, const std::map<std::string, WorkerView>& workers);
  void cancel(const TaskRef& ref, const std::string& id, const std::string& reason);

  Environment env_;
  std::map<TaskRef, Maker> makers_;
  bool dirty_ = false;  // services of SYSTEM tasks have to be looked at
  // A callback of before clear() says nothing of what is here now.
  uint64_t generation_ = 0;
  uint64_t next_stream_ = 1;
};

}  // namespace uccp::tasks
