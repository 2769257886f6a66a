#include "services/tasks/resources_service.h"

#include <algorithm>
#include <map>
#include <optional>

#include "call/listing.h"
#include "call/validate.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/task_checks.h"

namespace uccp::tasks {
namespace {

using call::CallPtr;
using internal::v1::TaskRow;
using internal::v1::WorkerRow;

constexpr size_t kUsageEntriesDefault = 100;
constexpr double kDayS = 86'400;

double seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() / 1e9;
}

void set_time(google::protobuf::Timestamp* out, double time) {
  out->set_seconds(static_cast<int64_t>(time));
  out->set_nanos(static_cast<int32_t>((time - static_cast<double>(out->seconds())) * 1e9));
}

struct Priced {
  Shape capacity;
  double price_per_hour = 0;
  std::string pool;
};

// Sums what attempts held between two moments.
class UsageReport {
 public:
  UsageReport(double from, double to, std::string group_by, std::map<std::string, Priced> workers)
      : from_(from), to_(to), group_by_(std::move(group_by)), workers_(std::move(workers)) {
    for (const auto& [id, worker] : workers_) cluster_ += worker.capacity;
  }

  void add(const v1::Task& task) {
    const Shape shape = shape_of(task.resources());
    for (const v1::Attempt& attempt : task.attempt_history()) {
      if (!attempt.has_start_time()) continue;
      count(task, shape, attempt.worker_id(), seconds(attempt.start_time()), seconds(attempt.end_time()));
    }
    const bool runs = task.status() == v1::TASK_STATUS_RUNNING || task.status() == v1::TASK_STATUS_STOPPING;
    if (runs && task.has_start_time()) {
      Sum& sum = count(task, shape, task.worker_id(), seconds(task.start_time()), to_);
      sum.held += shape;
      sum.entry.set_tasks_running(sum.entry.tasks_running() + 1);
    }
    if (task.has_end_time() && seconds(task.end_time()) >= from_ && seconds(task.end_time()) < to_) {
      Sum& sum = sums_[key_of(task, task.worker_id())];
      sum.entry.set_tasks_total(sum.entry.tasks_total() + 1);
    }
  }

  v1::ResourceUsageReport finish(size_t limit) {
    v1::ResourceUsageReport report;
    Sum total;
    std::vector<v1::ResourceUsageEntry> entries;
    for (auto& [key, sum] : sums_) {
      merge(total, sum);
      sum.entry.set_key(key);
      close(sum);
      entries.push_back(sum.entry);
    }
    std::ranges::sort(entries, [](const auto& a, const auto& b) {
      if (a.cost() != b.cost()) return a.cost() > b.cost();
      return a.cpu_hours() != b.cpu_hours() ? a.cpu_hours() > b.cpu_hours() : a.key() < b.key();
    });
    if (entries.size() > limit) entries.resize(limit);
    for (auto& entry : entries) *report.add_entries() = std::move(entry);
    close(total);
    *report.mutable_total() = total.entry;
    set_time(report.mutable_start_time(), from_);
    set_time(report.mutable_end_time(), to_);
    return report;
  }

 private:
  struct Sum {
    v1::ResourceUsageEntry entry;
    Shape held;
  };

  std::string key_of(const v1::Task& task, const std::string& worker) const {
    if (group_by_ == "user") return task.principal();
    if (group_by_ == "queue") return task.queue().empty() ? "default" : task.queue();
    if (group_by_ == "pool") {
      const auto found = workers_.find(worker);
      return found == workers_.end() || found->second.pool.empty() ? "default" : found->second.pool;
    }
    constexpr std::string_view kLabel = "label:";
    if (group_by_.starts_with(kLabel)) {
      const auto label = task.labels().find(group_by_.substr(kLabel.size()));
      return label == task.labels().end() ? "" : label->second;
    }
    return task.namespace_();
  }

  Sum& count(const v1::Task& task, const Shape& shape, const std::string& worker, double begin, double end) {
    Sum& sum = sums_[key_of(task, worker)];
    const double hours = std::max(0.0, std::min(end, to_) - std::max(begin, from_)) / 3600;
    v1::ResourceUsageEntry& entry = sum.entry;
    entry.set_cpu_hours(entry.cpu_hours() + static_cast<double>(shape.cpu_milli) / 1000 * hours);
    entry.set_memory_gib_hours(entry.memory_gib_hours() + static_cast<double>(shape.memory) / (1 << 30) * hours);
    entry.set_gpu_hours(entry.gpu_hours() +
                        (static_cast<double>(shape.gpus) + static_cast<double>(gpu_share(shape)) / 1000) * hours);
    if (const auto priced = workers_.find(worker); priced != workers_.end()) {
      entry.set_cost(entry.cost() +
                     priced->second.price_per_hour * hours * dominant_share(shape, priced->second.capacity).share);
    }
    return sum;
  }

  static void merge(Sum& total, const Sum& sum) {
    v1::ResourceUsageEntry& to = total.entry;
    const v1::ResourceUsageEntry& from = sum.entry;
    to.set_cpu_hours(to.cpu_hours() + from.cpu_hours());
    to.set_memory_gib_hours(to.memory_gib_hours() + from.memory_gib_hours());
    to.set_gpu_hours(to.gpu_hours() + from.gpu_hours());
    to.set_cost(to.cost() + from.cost());
    to.set_tasks_running(to.tasks_running() + from.tasks_running());
    to.set_tasks_total(to.tasks_total() + from.tasks_total());
    total.held += sum.held;
  }

  void close(Sum& sum) const {
    set_resources(*sum.entry.mutable_current(), sum.held);
    sum.entry.set_dominant_share(dominant_share(sum.held, cluster_).share);
  }

  const double from_, to_;
  const std::string group_by_;
  const std::map<std::string, Priced> workers_;
  Shape cluster_;
  std::map<std::string, Sum> sums_;
};

}  // namespace

void ResourcesService::register_handlers(call::HandlerTable& handlers) {
  handlers.add_parsed<v1::GetClusterResourcesRequest>("uccp.v1.ResourceManagement/GetClusterResources",
                                                      [this](const CallPtr& c, const auto& r) { cluster(c, r); });
  handlers.add_parsed<v1::ExplainQuotaRequest>("uccp.v1.ResourceManagement/ExplainQuota",
                                               [this](const CallPtr& c, const auto& r) { explain(c, r); });
  handlers.add_parsed<v1::GetResourceUsageRequest>("uccp.v1.ResourceManagement/GetResourceUsage",
                                                   [this](const CallPtr& c, const auto& r) { usage(c, r); });
}

void ResourcesService::cluster(const CallPtr& call, const v1::GetClusterResourcesRequest& request) {
  auto labels = call::LabelSelector::compile(request.labels());
  if (!labels) return call->finish(labels.error());
  env_.reader.read(
      kWorkGroup, call->read_level,
      [this, call, request, labels = std::move(*labels)](Result<machine::GroupView> view) {
        if (!view) return call->finish(view.error());
        struct Pool {
          Shape total, available;
          int32_t workers = 0;
        };
        Pool all;
        Shape allocated;
        std::map<std::string, Pool> pools;
        std::map<std::pair<std::string, uint64_t>, std::pair<double, double>>
            gpus;  // kind and memory: devices, free ones
        v1::ClusterResources out;
        work::kWorkers.scan(*view, work::kWorkerScope, "", "", [&](std::string_view, const WorkerRow& row) {
          v1::Worker worker = row.worker();
          env_.live.overlay(worker, row);
          const std::string pool_name = worker.pool().empty() ? "default" : worker.pool();
          if (!request.pool().empty() && request.pool() != pool_name) return true;
          if (!labels.empty() && !labels.matches(worker.SerializeAsString(), v1::Worker::kLabelsFieldNumber))
            return true;
          const bool ready = worker.status() == v1::WORKER_STATUS_READY;
          Pool& pool = pools[pool_name];
          for (Pool* one : {&all, &pool}) {
            one->total += shape_of(worker.resources().total());
            if (ready) one->available += shape_of(worker.resources().available());
            ++one->workers;
          }
          allocated += shape_of(worker.resources().allocated());
          out.set_workers_ready(out.workers_ready() + (ready ? 1 : 0));
          for (const v1::WorkerGpu& gpu : worker.gpus()) {
            auto& [devices, free] = gpus[{gpu.type(), gpu.memory()}];
            devices += gpu.count();
            free += static_cast<double>(gpu.count());
            for (const v1::GpuDevice& device : gpu.devices()) free -= device.allocated();
          }
          return true;
        });
        set_resources(*out.mutable_total(), all.total);
        set_resources(*out.mutable_available(), all.available);
        set_resources(*out.mutable_allocated(), allocated);
        out.set_workers_total(all.workers);
        for (const auto& [name, pool] : pools) {
          v1::PoolResources& item = *out.add_pools();
          item.set_pool(name);
          set_resources(*item.mutable_total(), pool.total);
          set_resources(*item.mutable_available(), pool.available);
          item.set_workers(pool.workers);
        }
        for (const auto& [kind, count] : gpus) {
          v1::GpuResources& item = *out.add_gpus();
          item.set_type(kind.first);
          item.set_memory(kind.second);
          item.set_total(count.first);
          item.set_available(count.second);
        }
        out.set_tasks_running(static_cast<int32_t>(env_.live.running()));
        out.set_tasks_queued(static_cast<int32_t>(env_.live.queued()));
        call->reply(out.SerializeAsString());
      });
}

void ResourcesService::explain(const CallPtr& call, const v1::ExplainQuotaRequest& request) {
  env_.loop.post([this, call, request = v1::ExplainQuotaRequest(request)]() mutable {
    if (request.user().empty()) request.set_user(call->principal.name);
    v1::QuotaExplanation out;
    Status status = env_.runtime.explain_quota(call->principal.tenant, request, out);
    if (!status.is_ok()) return call->finish(std::move(status));
    call->reply(out.SerializeAsString());
  });
}

void ResourcesService::usage(const CallPtr& call, const v1::GetResourceUsageRequest& request) {
  const double now = static_cast<double>(env_.clock.wall().us) / 1e6;
  const double to = request.has_end_time() ? seconds(request.end_time()) : now;
  const double from = request.has_start_time() ? seconds(request.start_time()) : to - kDayS;
  if (from > to) return call->finish(invalid_field("startTime", "is after the end"));
  env_.reader.read(kWorkGroup, call->read_level, [this, call, request, from, to](Result<machine::GroupView> view) {
    if (!view) return call->finish(view.error());
    std::map<std::string, Priced> workers;
    work::kWorkers.scan(*view, work::kWorkerScope, "", "", [&](std::string_view id, const WorkerRow& row) {
      workers[std::string(id)] = {shape_of(row.worker().resources().total()), row.worker().price_per_hour(),
                                  row.worker().pool()};
      return true;
    });
    UsageReport report(from, to, request.group_by(), std::move(workers));
    work::kTasks.scan_all(*view, [&](const machine::Scope& scope, std::string_view, const TaskRow& row) {
      if (scope.tenant != call->principal.tenant) return true;
      if (call->name_space != "-" && scope.name_space != call->name_space) return true;
      const auto add = [&](v1::Task task) {
        env_.live.overlay(scope.tenant, task);
        report.add(task);
      };
      if (!is_array(row.task())) add(row.task());
      else
        visit_element_rows(*view, scope, row, 0, [&](const TaskRow& element) {
          add(element.task());
          return true;
        });
      return true;
    });
    const size_t limit = request.limit() > 0 ? static_cast<size_t>(request.limit()) : kUsageEntriesDefault;
    call->reply(report.finish(limit).SerializeAsString());
  });
}

}  // namespace uccp::tasks
