#include "services/tasks/task_makers.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "call/listing.h"
#include "services/tasks/attempts.h"
#include "services/tasks/live_tasks.h"

namespace uccp::tasks {
namespace {

using internal::v1::FireCommand;
using internal::v1::TaskRow;

// A time that is so late only because there was no leader is not missed.
constexpr int64_t kLateUs = 30'000'000;
constexpr int kMissedMax = 100'000;
constexpr int64_t kReopenMs = 1'000;

// Whether the service of a SYSTEM task belongs on the worker: what the scheduler would ask too, but for room.
bool belongs(const v1::Task& task, const WorkerView& view) {
  const auto has_label = [&](const auto& wanted) {
    const auto label = view.labels.find(wanted.first);
    return label != view.labels.end() && label->second == wanted.second;
  };
  if (!std::ranges::all_of(task.node_selector(), has_label)) return false;
  for (const std::string& text : task.affinity().worker_required()) {
    const auto selector = call::LabelSelector::compile(text);
    if (!selector || !selector->matches(view.labels)) return false;
  }
  const Marks tolerations = tolerations_of(task);
  return std::ranges::all_of(view.taints, [&](const Mark& taint) {
    return taint.kind == TaintKind::kPreferNot || tolerates(tolerations, taint);
  });
}

// What the command reads: text and bytes as they are, JSON as text.
std::string content_of(const v1::Event& event) {
  if (event.has_data()) return event.data();
  if (event.has_text()) return event.text();
  std::string json;
  if (event.has_json()) (void)google::protobuf::util::MessageToJsonString(event.json(), &json);
  return json;
}

}  // namespace

void TaskMakers::clear() {
  makers_.clear();
  ++generation_;
}

std::string TaskMakers::explain(const v1::Task& task) {
  if (task.type() == v1::TASK_TYPE_SYSTEM) return "keeps a service on each worker that it fits; it never runs itself";
  if (task.type() == v1::TASK_TYPE_EVENT) return "makes a task for each event of its trigger; it never runs itself";
  if (task.schedule().paused()) return "its schedule is paused; task resume makes it fire again";
  return "makes a task at each time of its schedule; it never runs itself";
}

void TaskMakers::track(const TaskRef& ref, const TaskRow* row) {
  if (row != nullptr && !row->task().parent_id().empty()) dirty_ = true;
  if (row == nullptr || work::is_terminal(row->task().status()) || !work::makes_tasks(row->task().type())) {
    makers_.erase(ref);
    return;
  }
  Maker& maker = makers_[ref];
  maker.task = row->task();
  dirty_ = true;
  if (maker.task.type() == v1::TASK_TYPE_CRON) plan(maker, row->last_fire());
}

// The next time after the last one that counted, but for those that are missed: too long ago to be made up for.
void TaskMakers::plan(Maker& maker, int64_t last_fire) {
  maker.next_us = 0;
  maker.left_out = 0;
  if (maker.task.schedule().paused()) return;
  if (!maker.cron) {
    auto cron = CronSchedule::parse(maker.task.schedule().cron(), maker.task.schedule().time_zone());
    if (!cron)
      return log::error("a schedule cannot be read", {{"task", maker.task.id()}, {"why", cron.error().message()}});
    maker.cron = std::move(*cron);
  }
  const v1::Schedule& schedule = maker.task.schedule();
  // From a beginning in the past on, what is missed is made up for as if the task had been there.
  int64_t from = us_of(maker.task.create_time());
  if (schedule.has_start_time()) from = std::min(from, us_of(schedule.start_time()) - 1);
  if (last_fire > 0) from = last_fire;
  const int64_t oldest = oldest_us(schedule);
  auto next = next_fire(*maker.cron, schedule, from);
  for (; next && *next < oldest && maker.left_out < kMissedMax; ++maker.left_out) {
    maker.missed_us = *next;
    next = next_fire(*maker.cron, schedule, *next);
  }
  maker.next_us = next.value_or(0);
}

// A time before this one is missed.
int64_t TaskMakers::oldest_us(const v1::Schedule& schedule) const {
  return env_.clock.wall().us - std::max(kLateUs, ms_of(schedule.catch_up()) * 1000);
}

void TaskMakers::fire(const TaskRef& ref, Maker& maker, FireCommand command) {
  maker.busy = true;
  command.set_id(ref.id);
  machine::Envelope envelope = system_command("tasks.fire", command.SerializeAsString());
  envelope.scope = {ref.tenant, ref.name_space};
  env_.proposer.propose(kWorkGroup, std::move(envelope),
                        [this, ref, generation = generation_](const Result<machine::Applied>& applied) {
                          const auto known = makers_.find(ref);
                          if (generation != generation_ || known == makers_.end()) return;
                          known->second.busy = false;
                          dirty_ = true;
                          if (applied) return fire_event(ref, known->second);
                          // Its stream begins again behind the last event that counted.
                          known->second.events.reset();
                          known->second.waiting.clear();
                          known->second.stream = 0;
                          const auto row = work::kTasks.get(env_.view(), {ref.tenant, ref.name_space}, ref.id);
                          track(ref, row ? &*row : nullptr);
                        });
}

void TaskMakers::fire_cron(const TaskRef& ref, Maker& maker, int64_t now_us) {
  if (!maker.cron || (maker.next_us == 0 && maker.left_out == 0)) return;
  const v1::Schedule& schedule = maker.task.schedule();
  // The clock has jumped, or nobody has looked for a while.
  if (maker.left_out == 0 && maker.next_us < oldest_us(schedule)) {
    const auto row = work::kTasks.get(env_.view(), {ref.tenant, ref.name_space}, ref.id);
    if (row) plan(maker, row->last_fire());
  }
  FireCommand command;
  command.set_next_fire(maker.next_us);
  if (maker.left_out > 0) {
    command.set_fire(maker.missed_us);
    command.set_left_out(maker.left_out - 1);
    command.set_skip(true);
  } else if (maker.next_us <= now_us) {
    command.set_fire(maker.next_us);
    command.set_next_fire(next_fire(*maker.cron, schedule, maker.next_us).value_or(0));
    env_.metrics
        .histogram("uccp_cron_lateness_seconds", "Time from the moment at which a CRON task was to fire until it did")
        .observe(static_cast<double>(now_us - maker.next_us) / 1e6);
  } else if (maker.task.has_next_fire_time() && us_of(maker.task.next_fire_time()) == maker.next_us) {
    return;
  }
  // Until the row says what is next.
  maker.next_us = 0;
  maker.left_out = 0;
  fire(ref, maker, std::move(command));
}

void TaskMakers::cancel(const TaskRef& ref, const std::string& id, const std::string& reason) {
  internal::v1::CancelCommand command;
  command.set_id(id);
  command.set_reason(reason);
  command.set_grace_ms(-1);
  machine::Envelope envelope = system_command("tasks.cancel", command.SerializeAsString());
  envelope.scope = {ref.tenant, ref.name_space};
  env_.proposer.propose(kWorkGroup, std::move(envelope), [](const Result<machine::Applied>&) {});
}

// Behind the last event that made a task; at the beginning, behind the moment at which the task was accepted. So a new
// leader leaves out none and takes none twice.
void TaskMakers::open_stream(const TaskRef& ref, Maker& maker) {
  if (!env_.open_events || maker.events != nullptr || env_.clock.boot() < maker.open_at) return;
  const auto row = work::kTasks.get(env_.view(), {ref.tenant, ref.name_space}, ref.id);
  if (!row) return;
  v1::SubscribeRequest request;
  request.add_topics(maker.task.trigger().topic());
  request.set_filter(maker.task.trigger().filter());
  if (row->cursor().empty()) {
    request.set_start(v1::SUBSCRIBE_START_TIME);
    *request.mutable_start_time() = maker.task.create_time();
  } else {
    request.set_since(row->cursor());
  }
  maker.stream = next_stream_++;
  const auto of_stream = [this, ref, stream = maker.stream](auto work) {
    env_.loop.post([this, ref, stream, work = std::move(work)]() mutable {
      const auto known = makers_.find(ref);
      if (known != makers_.end() && known->second.stream == stream) work(known->second);
    });
  };
  maker.events = env_.open_events(
      ref, std::move(request),
      [this, of_stream, ref](v1::EventDelivery delivery, std::function<void()> taken) {
        if (!delivery.has_event()) return taken();
        of_stream([this, ref, delivery = std::move(delivery), taken = std::move(taken)](Maker& one) mutable {
          one.waiting.push_back({std::move(delivery), std::move(taken)});
          fire_event(ref, one);
        });
      },
      [this, of_stream, ref](const Status& status) {
        of_stream([this, ref, status](Maker& one) {
          log::debug("a stream of events for a task has ended", {{"task", ref.id}, {"why", status.message()}});
          one.events.reset();
          one.waiting.clear();
          one.stream = 0;
          one.open_at = env_.clock.boot().plus_ms(kReopenMs);
        });
      });
}

void TaskMakers::fire_event(const TaskRef& ref, Maker& maker) {
  if (maker.busy || maker.waiting.empty()) return;
  const machine::Scope scope{ref.tenant, ref.name_space};
  const machine::GroupView view = env_.view();
  const auto row = work::kTasks.get(view, scope, ref.id);
  if (!row || work::is_terminal(row->task().status())) return;
  const auto active = std::ranges::count_if(row->made(), [&](const std::string& id) {
    const auto child = work::kTasks.get(view, scope, id);
    return child && !work::is_terminal(child->task().status());
  });
  // Events wait on the bus; they are not left out as times of a schedule are.
  if (active >= work::kMadeByTimeMax) return;
  const v1::Event event = maker.waiting.front().delivery.event();
  FireCommand command;
  command.set_fire(row->last_fire() + 1);
  command.set_cursor(maker.waiting.front().delivery.cursor());
  auto& env = *command.mutable_env();
  env["UCCP_EVENT_ID"] = event.id();
  env["UCCP_EVENT_TOPIC"] = event.topic();
  env["UCCP_EVENT_TYPE"] = event.type();
  env["UCCP_EVENT_KEY"] = event.key();
  env["UCCP_EVENT_SUBJECT"] = event.subject();
  command.set_stdin(content_of(event));
  maker.waiting.front().taken();
  maker.waiting.pop_front();
  fire(ref, maker, std::move(command));
}

// One change at a time: what it leads to comes back as a change of the maker's row.
void TaskMakers::keep_system(const TaskRef& ref, Maker& maker, const std::map<std::string, WorkerView>& workers) {
  const machine::Scope scope{ref.tenant, ref.name_space};
  const machine::GroupView view = env_.view();
  const auto row = work::kTasks.get(view, scope, ref.id);
  if (!row) return;
  std::set<std::string> served;
  for (const std::string& id : row->made()) {
    const auto child = work::kTasks.get(view, scope, id);
    if (!child || work::is_terminal(child->task().status())) continue;
    const auto bound = child->task().node_selector().find(std::string(work::kWorkerLabel));
    if (bound == child->task().node_selector().end()) continue;
    const auto worker = workers.find(bound->second);
    const bool stays = worker != workers.end() && belongs(maker.task, worker->second);
    if (stays) served.insert(bound->second);
    else if (!child->cancel_requested()) cancel(ref, id, "its worker is gone, or does not fit " + ref.id + " any more");
  }
  for (const auto& [id, worker] : workers) {
    if (served.contains(id) || !belongs(maker.task, worker)) continue;
    FireCommand command;
    command.set_worker_id(id);
    return fire(ref, maker, std::move(command));
  }
}

void TaskMakers::tick() {
  const int64_t now_us = env_.clock.wall().us;
  const bool look = std::exchange(dirty_, false);
  std::map<std::string, WorkerView> workers;
  for (auto& [ref, maker] : makers_) {
    if (maker.busy) {
      dirty_ = dirty_ || look;
      continue;
    }
    if (maker.task.type() == v1::TASK_TYPE_EVENT) {
      open_stream(ref, maker);
      fire_event(ref, maker);
    }
    if (maker.task.type() == v1::TASK_TYPE_CRON) fire_cron(ref, maker, now_us);
    if (maker.task.type() != v1::TASK_TYPE_SYSTEM || !look) continue;
    if (workers.empty()) {
      work::kWorkers.scan(env_.view(), work::kWorkerScope, "", "",
                          [&](std::string_view id, const internal::v1::WorkerRow& row) {
                            // Those that never connected, or are fenced, have no place for anything.
                            if (!row.incarnation().empty() && row.worker().status() != v1::WORKER_STATUS_LOST)
                              workers.emplace(id, view_of(row, 1));
                            return true;
                          });
    }
    keep_system(ref, maker, workers);
  }
}

}  // namespace uccp::tasks
