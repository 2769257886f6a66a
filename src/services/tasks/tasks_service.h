// TaskScheduling and the result of ComputeExecution: validate, propose, read, stream. Handlers run on door threads.
#pragma once

#include <mutex>

#include "base/executor.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/change_types.h"
#include "services/tasks/task_logs.h"
#include "services/tasks/work_runtime.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::tasks {

struct TasksEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  LogEnvironment logs;
  LiveTasks& live;
  Executor& blob_io;                   // writes inputs
  std::function<bool()> disk_is_full;  // nothing is to be stored now; may be empty
  const Clock& clock;
  Random& random;  // used under a lock of the service
  const call::PageTokenSigner& page_tokens;
  std::function<uint32_t()> feature_level;
  // Whether the caller may read the events of a topic: a trigger hands them to whoever submits it.
  std::function<Status(const call::Call&, const std::string& topic)> may_subscribe;
  // Whether the caller may read an object: an input hands it to whoever submits the task.
  std::function<Status(const call::Call&, const v1::GetObjectRequest&)> may_read_object;
};

class TasksService {
 public:
  explicit TasksService(TasksEnvironment environment) : env_(std::move(environment)) {}
  void register_handlers(call::HandlerTable& handlers);
  // "$sys.tasks"
  services::ChangeTopic change_topic() const;

 private:
  void schedule(const call::CallPtr& call, std::string request);
  void schedule_graph(const call::CallPtr& call, std::string request);
  void resume(const call::CallPtr& call, std::string request);
  void save_checkpoint(const call::CallPtr& call, std::string request);
  void cancel(const call::CallPtr& call, std::string request);
  void run_cancel(const call::CallPtr& call, machine::Envelope envelope, internal::v1::CancelCommand command);
  void get(const call::CallPtr& call, const v1::GetTaskStatusRequest& request);
  void list(const call::CallPtr& call, std::string request);
  void set_priority(const call::CallPtr& call, std::string request);
  void metrics(const call::CallPtr& call, const v1::GetTaskMetricsRequest& request);
  void explain(const call::CallPtr& call, const v1::ExplainTaskRequest& request);
  void watch(const call::CallPtr& call, const v1::WatchTasksRequest& request);
  void artifact(const call::CallPtr& call, const v1::GetTaskArtifactRequest& request);
  void result(const call::CallPtr& call, const v1::GetResultRequest& request);

  using OnTask = std::function<void(Result<internal::v1::TaskRow>)>;
  void read_task(const call::CallPtr& call, const std::string& id, OnTask done);
  void wait_until_ended(const call::CallPtr& call, const std::string& id, int64_t wait_ms, OnTask done);
  Status prepare(v1::Task& task, const std::string& name_space);
  // Nodes of before know nothing of some of what a task may say.
  Status check_level(const v1::Task& task) const;
  Status check_input(const v1::Task& task, int index) const;
  // Moves inline inputs to the blob store and makes sure that those named by hash are there. Blocks on disk.
  Status store_inputs(v1::Task& task);
  using Rows = google::protobuf::RepeatedPtrField<internal::v1::TaskRow>;
  using OnStored = std::move_only_function<void(Rows)>;
  // Stores the inputs of tasks that are about to be, then goes on with them; on an error the call is answered.
  void store(const call::CallPtr& call, Rows rows, OnStored done);
  void store_content(const call::CallPtr& call, Rows rows, OnStored done);
  // Inputs that are objects become the blobs that these are now.
  Status use_objects(const call::Call& call, const machine::GroupView& view, v1::Task& task) const;
  // The rows of a graph in their order, checked and complete, with ids.
  Result<internal::v1::ScheduleGraphCommand> graph_of(const call::CallPtr& call,
                                                      const v1::ScheduleTaskGraphRequest& request);
  // Proposes, and answers what the command results in.
  void propose(const call::CallPtr& call, machine::Envelope envelope);
  // A stored task with what only the leader knows of it.
  v1::Task public_task(internal::v1::TaskRow row) const;
  std::string make_id();

  TasksEnvironment env_;
  std::mutex random_mutex_;
};

}  // namespace uccp::tasks
