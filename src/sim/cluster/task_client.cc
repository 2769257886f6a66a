#include "sim/cluster/task_client.h"

#include "services/feature_types.h"
#include "services/tasks/task_arrays.h"

namespace uccp::sim {

TaskClient::TaskClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "tasks-" + std::to_string(number)), left_(operations) {}

void TaskClient::start() {
  after_us(below(50'000), [this] { next(); });
}

void TaskClient::next() {
  if (left_ == 0) return;
  if (!known_.empty() && chance(0.15)) cancel();
  else submit();
}

v1::Task TaskClient::new_task() {
  v1::Task task;
  task.set_id(name() + "." + std::to_string(++tasks_));
  task.set_namespace_("n");
  task.add_command("true");
  task.set_priority(static_cast<int32_t>(below(3) * 50));
  task.mutable_resources()->set_cpu(1 + static_cast<double>(below(2)));
  task.mutable_resources()->set_memory(uint64_t{1} << 30);
  task.mutable_grace_period()->set_nanos(static_cast<int32_t>(below(100) * 1'000'000));
  task.mutable_retry()->set_max_attempts(static_cast<int32_t>(1 + below(4)));
  task.mutable_retry()->mutable_initial_backoff()->set_nanos(static_cast<int32_t>(1 + below(100)) * 1'000'000);
  return task;
}

void TaskClient::submit() {
  if (cluster_.options().gangs && chance(0.5) && gangs_are_known()) return submit_gang();
  internal::v1::TaskRow row;
  row.set_cancel_grace_ms(-1);
  v1::Task& task = *row.mutable_task();
  task = new_task();
  for (int64_t count = below(4) - 1; count > 0 && !known_.empty(); --count) {
    auto& dependency = *task.add_dependencies();
    const int64_t back = 1 + below(std::min<int64_t>(10, static_cast<int64_t>(known_.size())));
    dependency.set_task_id(known_[known_.size() - static_cast<size_t>(back)]);
    dependency.set_condition(static_cast<v1::DependencyCondition>(1 + below(3)));
  }
  if (cluster_.options().arrays && chance(0.5)) {
    task.mutable_array()->set_size(static_cast<int32_t>(1 + below(8)));
    task.mutable_array()->set_parallelism(static_cast<int32_t>(below(4)));
  }
  write(kWorkGroup, envelope("tasks.schedule", row.SerializeAsString()),
        [this, id = task.id()](Result<machine::Applied> result, int64_t) {
          if (result) {
            known_.push_back(id);
            cluster_.checkers().durability.acknowledged(kWorkGroup, "tasks:" + id, result->index);
          } else if (result.error().code() != Code::kOutcomeUnknown) {
            cluster_.checkers().violations.add("writes", id + ": " + result.error().to_string());
          }
          completed();
        });
}

// Before, the service takes none: that they have begun is not kept.
bool TaskClient::gangs_are_known() const {
  const size_t leader = cluster_.leader(kWorkGroup);
  return leader < cluster_.places() &&
         cluster_.node(leader).node().status().at(kWorkGroup).group.feature_level >= services::kSchedulingLevel;
}

// All of it in one command: a part of one would wait for ever. Mostly it may be stopped for others.
void TaskClient::submit_gang() {
  internal::v1::ScheduleGraphCommand command;
  const auto size = static_cast<int32_t>(2 + below(2));
  const bool preemptible = chance(0.8);
  const std::string gang = name() + "-gang-" + std::to_string(tasks_ + 1);
  const int64_t least = chance(0.3) ? 1 + below(size) : 0;
  for (int32_t i = 0; i < size; ++i) {
    internal::v1::TaskRow& row = *command.add_rows();
    row.set_cancel_grace_ms(-1);
    v1::Task& task = *row.mutable_task();
    task = new_task();
    task.set_preemptible(preemptible);
    if (preemptible) task.set_priority(0);
    task.mutable_gang()->set_id(gang);
    task.mutable_gang()->set_size(size);
    task.mutable_gang()->set_min_size(static_cast<int32_t>(least));
  }
  write(kWorkGroup, envelope("tasks.schedule_graph", command.SerializeAsString()),
        [this, gang](Result<machine::Applied> result, int64_t) {
          if (!result && result.error().code() != Code::kOutcomeUnknown)
            cluster_.checkers().violations.add("writes", gang + ": " + result.error().to_string());
          completed();
        });
}

void TaskClient::cancel() {
  internal::v1::CancelCommand command;
  const int64_t back = 1 + below(std::min<int64_t>(20, static_cast<int64_t>(known_.size())));
  command.set_id(known_[known_.size() - static_cast<size_t>(back)]);
  command.set_grace_ms(chance(0.5) ? -1 : below(50));
  if (cluster_.options().arrays && chance(0.5)) {
    // An element, or some: of what is no array, or has fewer, there is none.
    if (chance(0.5)) command.set_id(tasks::element_id(command.id(), static_cast<uint32_t>(below(8))));
    auto& range = *command.mutable_elements()->add_only();
    range.set_first(static_cast<uint32_t>(below(4)));
    range.set_count(static_cast<uint32_t>(1 + below(4)));
  }
  cancel_task(
      envelope("tasks.cancel", ""), command, [this, id = command.id()](Result<machine::Applied> result, int64_t) {
        const bool expected = !result && (result.error().code() == Code::kOutcomeUnknown ||
                                          (cluster_.options().arrays && result.error().code() == Code::kNotFound));
        if (!result && !expected) {
          cluster_.checkers().violations.add("writes", "cancelling " + id + ": " + result.error().to_string());
        }
        completed();
      });
}

void TaskClient::completed() {
  --left_;
  after_us(below(chance(0.05) ? 500'000 : 20'000), [this] { next(); });
}

}  // namespace uccp::sim
