#include "services/tasks/tasks_service.h"

#include <algorithm>
#include <atomic>
#include <set>

#include "base/bytes.h"
#include "call/command.h"
#include "call/validate.h"
#include "machine/resource_id.h"
#include "services/objects/blob_stream.h"
#include "services/tasks/attempts.h"
#include "services/tasks/result_stream.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_checks.h"

namespace uccp::tasks {
namespace {

using call::CallPtr;
using internal::v1::TaskRow;

constexpr size_t kWatchQueueBytesMax = 4u << 20;

Status no_such_task(const std::string& id) {
  return Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + id + " in this namespace")
      .with_resource("task", id);
}

bool is_array_of(std::string_view key, std::string_view id) {
  const auto element = element_of(id);
  return element && element->array == key;
}

void reply_with(const CallPtr& call, Result<machine::Applied> applied) {
  if (!applied) return call->finish(applied.error());
  call->set_header("Uccp-Session", machine::session_token({{kWorkGroup, applied->index}}));
  call->reply(std::move(applied->response));
}

}  // namespace

void TasksService::register_handlers(call::HandlerTable& handlers) {
  const auto raw = [&](std::string_view name, void (TasksService::*member)(const CallPtr&, std::string)) {
    handlers.add(
        "uccp.v1.TaskScheduling/" + std::string(name),
        [this, member](const CallPtr& call, std::string request) { (this->*member)(call, std::move(request)); });
  };
  raw("ScheduleTask", &TasksService::schedule);
  raw("ScheduleTaskGraph", &TasksService::schedule_graph);
  raw("ResumeTask", &TasksService::resume);
  raw("SaveCheckpoint", &TasksService::save_checkpoint);
  raw("CancelTask", &TasksService::cancel);
  raw("ListTasks", &TasksService::list);
  raw("UpdateTaskPriority", &TasksService::set_priority);
  handlers.add_parsed<v1::GetTaskStatusRequest>("uccp.v1.TaskScheduling/GetTaskStatus",
                                                [this](const CallPtr& c, const auto& r) { get(c, r); });
  handlers.add_parsed<v1::GetTaskMetricsRequest>("uccp.v1.TaskScheduling/GetTaskMetrics",
                                                 [this](const CallPtr& c, const auto& r) { metrics(c, r); });
  handlers.add_parsed<v1::ExplainTaskRequest>("uccp.v1.TaskScheduling/ExplainTask",
                                              [this](const CallPtr& c, const auto& r) { explain(c, r); });
  handlers.add_parsed<v1::WatchTasksRequest>("uccp.v1.TaskScheduling/WatchTasks",
                                             [this](const CallPtr& c, const auto& r) { watch(c, r); });
  handlers.add_parsed<v1::GetTaskLogsRequest>(
      "uccp.v1.TaskScheduling/GetTaskLogs", [this](const CallPtr& c, const auto& r) { follow_logs(env_.logs, c, r); });
  handlers.add_parsed<v1::GetTaskArtifactRequest>("uccp.v1.TaskScheduling/GetTaskArtifact",
                                                  [this](const CallPtr& c, const auto& r) { artifact(c, r); });
  handlers.add_parsed<v1::GetResultRequest>("uccp.v1.ComputeExecution/GetResult",
                                            [this](const CallPtr& c, const auto& r) { result(c, r); });
  handlers.add_parsed<v1::StreamResultsRequest>(
      "uccp.v1.ComputeExecution/StreamResults",
      [this](const CallPtr& c, const auto& r) { follow_results(env_.logs, c, r); });
}

v1::Task TasksService::public_task(TaskRow row) const {
  v1::Task task = std::move(*row.mutable_task());
  env_.live.overlay(row.tenant(), task);
  if (task.status() == v1::TASK_STATUS_QUEUED && task.has_next_attempt_time()) {
    // What pauses between attempts does not wait for a worker yet.
    const auto& next = task.next_attempt_time();
    if (next.seconds() * 1'000'000 + next.nanos() / 1000 > env_.clock.wall().us)
      task.set_status(v1::TASK_STATUS_PENDING);
  }
  return task;
}

std::string TasksService::make_id() {
  std::lock_guard lock(random_mutex_);
  return machine::make_id("task", env_.clock.wall(), env_.random);
}

void TasksService::schedule(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ScheduleTaskRequest>(bytes);
  if (!request) return call->finish(request.error());
  TaskRow row;
  v1::Task& task = *row.mutable_task();
  // What the server sets is dropped: clients send back what they read.
  const std::string canonical =
      call::canonical(call::Contract::get().plan("uccp.v1.Task"), request->task().SerializeAsString()).value_or("");
  (void)task.ParseFromString(canonical);
  if (Status status = prepare(task, call->name_space); !status.is_ok()) return call->finish(std::move(status));
  if (task.has_trigger()) {
    Status status = env_.may_subscribe(*call, task.trigger().topic());
    if (!status.is_ok()) return call->finish(std::move(status));
  }
  task.set_principal(call->principal.name);
  row.set_cancel_grace_ms(-1);
  if (request->validate_only()) return call->reply(task.SerializeAsString());
  if (Status level = check_level(task); !level.is_ok()) return call->finish(std::move(level));
  Rows rows;
  *rows.Add() = std::move(row);
  auto propose_row = [this, call, bytes = std::move(bytes)](const Rows& stored) {
    propose(call, call::make_envelope(*call, bytes, "tasks.schedule", stored[0].SerializeAsString()));
  };
  if (!request->reject_unplaceable()) return store(call, std::move(rows), std::move(propose_row));
  env_.logs.loop.post([this, call, rows = std::move(rows), propose_row = std::move(propose_row)]() mutable {
    if (Status status = env_.logs.runtime.check_placeable(call->principal.tenant, rows[0].task()); !status.is_ok())
      return call->finish(std::move(status));
    store(call, std::move(rows), std::move(propose_row));
  });
}

void TasksService::propose(const CallPtr& call, machine::Envelope envelope) {
  env_.proposer.propose(kWorkGroup, std::move(envelope),
                        [call](Result<machine::Applied> applied) { reply_with(call, std::move(applied)); });
}

void TasksService::cancel(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::CancelTaskRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::CancelCommand command;
  command.set_id(request->id());
  command.set_reason(request->reason());
  command.set_grace_ms(request->has_grace_period() ? ms_of(request->grace_period()) : -1);
  auto envelope = call::make_envelope(*call, bytes, "tasks.cancel", "");
  if (request->elements().empty()) return run_cancel(call, std::move(envelope), std::move(command));
  read_task(call, request->id(),
            [this, call, envelope = std::move(envelope), command = std::move(command),
             elements = request->elements()](Result<TaskRow> row) mutable {
              if (!row) return call->finish(row.error());
              if (!is_array(row->task())) return call->finish(invalid_field("elements", "is only for arrays"));
              auto ranges = parse_ranges(elements, static_cast<uint32_t>(row->task().array().size()));
              if (!ranges) return call->finish(ranges.error());
              command.mutable_elements()->mutable_only()->Assign(ranges->begin(), ranges->end());
              run_cancel(call, std::move(envelope), std::move(command));
            });
}

void TasksService::run_cancel(const CallPtr& call, machine::Envelope envelope, internal::v1::CancelCommand command) {
  env_.logs.loop.post([this, call, envelope = std::move(envelope), command = std::move(command)]() mutable {
    env_.logs.runtime.cancel(std::move(envelope), std::move(command), [this, call](Result<machine::Applied> applied) {
      if (!applied) return call->finish(applied.error());
      v1::Task task;
      (void)task.ParseFromString(applied->response);
      env_.live.overlay(call->principal.tenant, task);
      call->reply(task.SerializeAsString());
    });
  });
}

void TasksService::set_priority(const CallPtr& call, std::string bytes) {
  propose(call, call::make_envelope(*call, bytes, "tasks.set_priority", bytes));
}

void TasksService::read_task(const CallPtr& call, const std::string& id, OnTask done) {
  env_.reader.read(kWorkGroup, call->read_level, [call, id, done = std::move(done)](Result<machine::GroupView> view) {
    if (!view) return done(std::unexpected(view.error()));
    auto row = find_task(*view, {call->principal.tenant, call->name_space}, id);
    if (!row) return done(std::unexpected(no_such_task(id)));
    call->set_header("Uccp-Session", machine::session_token({{kWorkGroup, view->applied()}}));
    done(std::move(*row));
  });
}

// Waits for the end of a task at most `wait_ms`, then answers it as it is.
void TasksService::wait_until_ended(const CallPtr& call, const std::string& id, int64_t wait_ms, OnTask done) {
  struct Wait {
    std::atomic<bool> answered{false};
    std::shared_ptr<machine::Watch> watch;
    OnTask done;
  };
  env_.reader.read(kWorkGroup, call->read_level,
                   [this, call, id, wait_ms, done = std::move(done)](Result<machine::GroupView> view) mutable {
                     if (!view) return done(std::unexpected(view.error()));
                     const machine::Scope scope{call->principal.tenant, call->name_space};
                     auto row = find_task(*view, scope, id);
                     if (!row) return done(std::unexpected(no_such_task(id)));
                     if (wait_ms <= 0 || work::is_terminal(row->task().status())) return done(std::move(*row));
                     auto wait = std::make_shared<Wait>();
                     wait->done = std::move(done);
                     const auto answer = [this, call, scope, id, weak = std::weak_ptr(wait)] {
                       auto w = weak.lock();
                       if (!w || w->answered.exchange(true)) return;
                       auto now = find_task(env_.logs.view(), scope, id);
                       if (now) w->done(std::move(*now));
                       else w->done(std::unexpected(no_such_task(id)));
                     };
                     call->keep(wait);
                     wait->watch = env_.logs.watcher.watch(
                         {kWorkGroup, std::string(work::kTaskTopic), scope.tenant, scope.name_space}, view->applied(),
                         [this, id, scope, answer](const machine::Change& change) {
                           if (is_array_of(change.key, id)) {
                             // Many elements may end with one change of their array.
                             const auto now = find_task(env_.logs.view(), scope, id);
                             if (now && !work::is_terminal(now->task().status())) return true;
                             answer();
                             return false;
                           }
                           if (change.key != id) return true;
                           TaskRow changed;
                           if (changed.ParseFromString(change.payload) && !work::is_terminal(changed.task().status()))
                             return true;
                           answer();
                           return false;
                         },
                         [answer](const Status&) { answer(); });
                     env_.logs.loop.post_after(wait_ms, answer);
                     call->begin_waiting();
                   });
}

void TasksService::get(const CallPtr& call, const v1::GetTaskStatusRequest& request) {
  wait_until_ended(call, request.id(), ms_of(request.wait()), [this, call](Result<TaskRow> row) {
    if (!row) return call->finish(row.error());
    call->reply(public_task(std::move(*row)).SerializeAsString());
  });
}

void TasksService::result(const CallPtr& call, const v1::GetResultRequest& request) {
  wait_until_ended(call, request.id(), ms_of(request.wait()), [this, call](Result<TaskRow> row) {
    if (!row) return call->finish(row.error());
    v1::TaskResult result;
    fill_result(public_task(std::move(*row)), result);
    call->reply(result.SerializeAsString());
  });
}

void TasksService::list(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ListTasksRequest>(bytes);
  if (!request) return call->finish(request.error());
  const machine::Scope scope{call->principal.tenant, call->name_space};
  auto query =
      call::compile_list(*call->method, bytes, {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope});
  if (!query) return call->finish(query.error());
  auto labels = call::LabelSelector::compile(request->labels());
  if (!labels) return call->finish(labels.error());
  env_.reader.read(
      kWorkGroup, call->read_level,
      [this, call, scope, query = std::move(*query), request = std::move(*request),
       labels = std::move(*labels)](Result<machine::GroupView> view) {
        if (!view) return call->finish(view.error());
        std::optional<TaskRow> array;
        if (!request.array().empty()) {
          array = work::kTasks.get(*view, scope, request.array());
          if (!array || !is_array(array->task()))
            return call->finish(invalid_field("array", "is no array of this namespace: " + request.array()));
        }
        const auto wanted = [&](const v1::Task& task) {
          return request.status().empty() ||
                 std::ranges::find(request.status(), task.status()) != request.status().end();
        };
        const auto show = [&](std::string_view key, const TaskRow& row, const call::VisitRow& visit) {
          const v1::Task task = public_task(row);
          if (!wanted(task)) return true;
          const std::string item = task.SerializeAsString();
          if (!labels.empty() && !labels.matches(item, v1::Task::kLabelsFieldNumber)) return true;
          return visit(key, item);
        };
        const auto scan = [&](std::string_view after, const call::VisitRow& visit) {
          if (!array) {
            return work::kTasks.scan(*view, scope, "", after, [&](std::string_view key, const TaskRow& row) {
              return key == after || show(key, row, visit);
            });
          }
          const uint32_t from = after.empty() ? 0 : ByteReader(after).u32() + 1;
          visit_element_rows(*view, scope, *array, from, [&](const TaskRow& row) {
            const auto index = static_cast<uint32_t>(row.task().array_index());
            return show(ByteWriter().u32(index).take(), row, visit);
          });
        };
        auto page = call::paginate(query, scan);
        if (!page) return call->finish(page.error());
        call->set_header("Uccp-Session", machine::session_token({{kWorkGroup, view->applied()}}));
        call->reply(call::encode_page(*call->method, *page));
      });
}

void TasksService::metrics(const CallPtr& call, const v1::GetTaskMetricsRequest& request) {
  read_task(call, request.id(), [this, call](Result<TaskRow> row) {
    if (!row) return call->finish(row.error());
    const v1::Task task = public_task(std::move(*row));
    v1::TaskMetrics metrics;
    metrics.set_id(task.id());
    metrics.set_attempts(task.attempts());
    for (const v1::Attempt& attempt : task.attempt_history()) {
      v1::Usage& total = *metrics.mutable_total();
      total.set_cpu_seconds(total.cpu_seconds() + attempt.usage().cpu_seconds());
      total.set_memory_peak_bytes(std::max(total.memory_peak_bytes(), attempt.usage().memory_peak_bytes()));
    }
    if (task.status() == v1::TASK_STATUS_RUNNING || task.status() == v1::TASK_STATUS_STOPPING) {
      *metrics.mutable_current() = task.usage();
      metrics.mutable_total()->set_cpu_seconds(metrics.total().cpu_seconds() + task.usage().cpu_seconds());
    }
    const auto seconds = [](const google::protobuf::Timestamp& t) {
      return static_cast<double>(t.seconds()) + t.nanos() / 1e9;
    };
    const auto set = [](google::protobuf::Duration* out, double s) {
      out->set_seconds(static_cast<int64_t>(s));
      out->set_nanos(static_cast<int32_t>((s - static_cast<double>(out->seconds())) * 1e9));
    };
    const double now = static_cast<double>(env_.clock.wall().us) / 1e6;
    const double start = task.has_start_time() ? seconds(task.start_time()) : now;
    const double end = task.has_end_time() ? seconds(task.end_time()) : now;
    if (task.has_queue_time()) set(metrics.mutable_queued(), std::max(0.0, start - seconds(task.queue_time())));
    if (task.has_start_time()) set(metrics.mutable_running(), std::max(0.0, end - start));
    call->reply(metrics.SerializeAsString());
  });
}

void TasksService::explain(const CallPtr& call, const v1::ExplainTaskRequest& request) {
  read_task(call, request.id(), [this, call](Result<TaskRow> row) {
    if (!row) return call->finish(row.error());
    env_.logs.loop.post([this, call, row = std::move(*row)] {
      const v1::Task task = public_task(row);
      v1::TaskExplanation explanation;
      explanation.set_id(task.id());
      explanation.set_status(task.status());
      const TaskRef ref{call->principal.tenant, call->name_space, task.id()};
      if (Status status = env_.logs.runtime.explain(ref, row, explanation); !status.is_ok()) {
        return call->finish(std::move(status));
      }
      call->reply(explanation.SerializeAsString());
    });
  });
}

void TasksService::artifact(const CallPtr& call, const v1::GetTaskArtifactRequest& request) {
  read_task(call, request.id(), [this, call, request](Result<TaskRow> row) {
    if (!row) return call->finish(row.error());
    for (const v1::Artifact& artifact : row->task().artifacts()) {
      if (artifact.path() != request.path()) continue;
      const uint64_t offset =
          request.since().empty() ? request.offset() : std::strtoull(request.since().c_str(), nullptr, 10);
      if (offset > artifact.size()) return call->finish(invalid_field("offset", "is behind the end of the artifact"));
      return objects::stream_blob(env_.logs.io, env_.logs.blobs,
                                  {.call = call,
                                   .sha256 = artifact.sha256(),
                                   .offset = offset,
                                   .size = artifact.size(),
                                   .item = [artifact](uint64_t at, std::string data) {
                                     v1::ArtifactChunk chunk;
                                     chunk.set_cursor(std::to_string(at + data.size()));
                                     chunk.set_offset(at);
                                     if (at == 0) *chunk.mutable_artifact() = artifact;
                                     if (data.empty()) chunk.mutable_end()->set_reason(v1::STREAM_END_REASON_COMPLETED);
                                     chunk.set_data(std::move(data));
                                     return chunk.SerializeAsString();
                                   }});
    }
    call->finish(Status(Code::kNotFound, "ARTIFACT_NOT_FOUND",
                        "the task " + request.id() + " has no artifact " + request.path() +
                            (work::is_terminal(row->task().status()) ? "" : "; it has not ended yet"))
                     .with_resource("artifact", request.path()));
  });
}

namespace {

std::string encode_event(LogIndex cursor, v1::TaskEventKind kind, std::optional<v1::Task> task) {
  v1::TaskEvent event;
  event.set_cursor(std::to_string(cursor.value));
  event.set_kind(kind);
  if (task) *event.mutable_task() = std::move(*task);
  return event.SerializeAsString();
}

// One WatchTasks call. Replicated changes come with the watch, RUNNING and progress from the live tasks.
struct TaskWatch {
  call::CallPtr call;
  call::Filter filter;
  std::set<std::string> ids;
  std::string tenant;
  std::mutex mutex;
  LogIndex cursor;
  std::shared_ptr<machine::Watch> watch;
  uint64_t listener = 0;
  LiveTasks* live = nullptr;
  std::function<machine::GroupView()> view;

  ~TaskWatch() {
    if (live != nullptr && listener != 0) live->unlisten(listener);
  }
  bool wants(const v1::Task& task) const {
    return (ids.empty() || ids.contains(task.id())) && (filter.empty() || filter.matches(task.SerializeAsString()));
  }
  void end(v1::StreamEndReason reason, const std::string& message, Status status) {
    v1::TaskEvent event;
    event.set_cursor(std::to_string(cursor.value));
    event.mutable_end()->set_reason(reason);
    event.mutable_end()->set_message(message);
    call->send(event.SerializeAsString());
    call->finish(std::move(status));
  }
  // Ends the call if tasks were named and the end of each of them was sent. True: it is over.
  bool complete(const std::string& name_space) {
    if (ids.empty() || call->finished()) return call->finished();
    const machine::GroupView now = view();
    for (const std::string& id : ids) {
      const auto row = find_task(now, {tenant, name_space}, id);
      if (!row || !work::is_terminal(row->task().status()) || row->task().revision() > cursor.value) return false;
    }
    end(v1::STREAM_END_REASON_COMPLETED, "all of the named tasks have ended", Status::ok());
    return true;
  }
  // False: the call is over.
  bool send(v1::TaskEventKind kind, std::optional<v1::Task> task) {
    if (call->finished()) return false;
    if (call->sink->queued_bytes() > kWatchQueueBytesMax) {
      end(v1::STREAM_END_REASON_TOO_SLOW, "the client takes events too slowly; resume with the last cursor",
          Status::ok());
      return false;
    }
    call->send(encode_event(cursor, kind, std::move(task)));
    return true;
  }
};

v1::TaskEventKind event_kind(uint8_t kind) {
  switch (static_cast<work::ChangeKind>(kind)) {
    case work::ChangeKind::kAdded: return v1::TASK_EVENT_KIND_ADDED;
    case work::ChangeKind::kUpdated: return v1::TASK_EVENT_KIND_UPDATED;
    case work::ChangeKind::kRemoved: return v1::TASK_EVENT_KIND_REMOVED;
  }
  return v1::TASK_EVENT_KIND_UNSPECIFIED;
}

}  // namespace

services::ChangeTopic TasksService::change_topic() const {
  return {.name = "$sys.tasks",
          .group = kWorkGroup,
          .feed = std::string(work::kTaskTopic),
          .permission = "tasks.read",
          .resource_type = "uccp.v1.Task",
          .show = [this](const machine::Change& change) -> std::optional<services::ShownChange> {
            TaskRow row;
            if (!row.ParseFromString(change.payload)) return std::nullopt;
            return services::ShownChange{services::change_type("task", v1::TaskEventKind_Name(event_kind(change.kind))),
                                         change.key, public_task(std::move(row)).SerializeAsString()};
          }};
}

void TasksService::watch(const CallPtr& call, const v1::WatchTasksRequest& request) {
  auto filter = call::Filter::compile(call::Contract::get().plan("uccp.v1.Task"), request.filter());
  if (!filter) return call->finish(filter.error());
  auto state = std::make_shared<TaskWatch>();
  state->call = call;
  state->filter = std::move(*filter);
  state->ids.insert(request.ids().begin(), request.ids().end());
  state->tenant = call->principal.tenant;
  state->live = &env_.live;
  state->view = env_.logs.view;
  char* parsed_end = nullptr;
  const LogIndex since(std::strtoull(request.since().c_str(), &parsed_end, 10));
  if (*parsed_end != '\0') return call->finish(invalid_field("since", "is not the cursor of an event", "1042"));
  call->keep(state);
  env_.reader.read(
      kWorkGroup, call->read_level, [this, call, since, weak = std::weak_ptr(state)](Result<machine::GroupView> view) {
        auto s = weak.lock();
        if (!s) return;
        if (!view) return call->finish(view.error());
        const machine::Scope scope{s->tenant, call->name_space};
        {
          std::lock_guard lock(s->mutex);
          s->cursor = since ? since : view->applied();
          if (!since) {
            work::kTasks.scan(*view, scope, "", "", [&](std::string_view, TaskRow row) {
              v1::Task task = public_task(std::move(row));
              return !s->wants(task) || s->send(v1::TASK_EVENT_KIND_ADDED, std::move(task));
            });
            s->send(v1::TASK_EVENT_KIND_SYNCED, std::nullopt);
          }
          if (s->complete(scope.name_space)) return;
        }
        s->watch = env_.logs.watcher.watch(
            {kWorkGroup, std::string(work::kTaskTopic), scope.tenant, scope.name_space}, s->cursor,
            [this, weak, scope](const machine::Change& change) {
              auto w = weak.lock();
              TaskRow row;
              if (!w || !row.ParseFromString(change.payload)) return false;
              v1::Task task = public_task(std::move(row));
              std::lock_guard lock(w->mutex);
              w->cursor = change.index;
              if (!w->wants(task)) {
                // Elements that are waited for may have ended with it.
                return !(is_array(task) && w->complete(scope.name_space));
              }
              const bool over = work::is_terminal(task.status());
              return w->send(event_kind(change.kind), std::move(task)) && !(over && w->complete(scope.name_space));
            },
            [weak](const Status& status) {
              auto w = weak.lock();
              if (!w) return;
              std::lock_guard lock(w->mutex);
              w->end(status.reason() == "CURSOR_COMPACTED" ? v1::STREAM_END_REASON_COMPACTED
                                                           : v1::STREAM_END_REASON_RECONNECT,
                     status.message(), status);
            });
        s->listener = env_.live.listen([this, weak, scope](const TaskRef& ref) {
          auto w = weak.lock();
          if (!w || ref.tenant != scope.tenant || ref.name_space != scope.name_space) return;
          auto row = find_task(env_.logs.view(), scope, ref.id);
          if (!row) return;
          v1::Task task = public_task(std::move(*row));
          if (task.status() != v1::TASK_STATUS_RUNNING) return;
          std::lock_guard lock(w->mutex);
          if (w->wants(task)) w->send(v1::TASK_EVENT_KIND_UPDATED, std::move(task));
        });
      });
}

}  // namespace uccp::tasks
