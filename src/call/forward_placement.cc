// Where each method is served: the group that owns it, and whether its leader has to.
#include <algorithm>
#include <array>

#include "call/forward.h"
#include "call/wire.h"

namespace uccp::call {
namespace {

constexpr std::array<std::string_view, 5> kWorkServices = {"uccp.v1.TaskScheduling", "uccp.v1.WorkerManagement",
                                                           "uccp.v1.ResourceManagement", "uccp.v1.ComputeExecution",
                                                           "uccp.internal.v1.AgentLink"};
// Reads that show what only the leader has in memory: what runs where, what is used, progress, live output, heartbeats.
constexpr std::array<std::string_view, 20> kLeaderReads = {
    "uccp.v1.TaskScheduling/GetTaskStatus", "uccp.v1.TaskScheduling/ListTasks", "uccp.v1.TaskScheduling/GetTaskLogs",
    "uccp.v1.TaskScheduling/WatchTasks", "uccp.v1.TaskScheduling/GetTaskMetrics", "uccp.v1.TaskScheduling/ExplainTask",
    "uccp.v1.WorkerManagement/ListWorkers", "uccp.v1.WorkerManagement/GetWorkerStatus",
    "uccp.v1.ResourceManagement/GetClusterResources", "uccp.v1.ResourceManagement/GetQuota",
    "uccp.v1.ResourceManagement/ListQuotas", "uccp.v1.ResourceManagement/ExplainQuota",
    "uccp.v1.ResourceManagement/GetResourceUsage", "uccp.v1.ComputeExecution/GetResult",
    "uccp.v1.ComputeExecution/StreamResults", "uccp.v1.KeyValue/GetLease", "uccp.v1.EventBus/GetSubscription",
    "uccp.v1.EventBus/ListSubscriptions",
    // In the directory of the node that makes them.
    "uccp.v1.Administration/GetBackup", "uccp.v1.Administration/ListBackups"};
// Changes that any node makes: blobs are copied between the nodes, not replicated by a log; certificates of agents are
// not stored; publishing finds the groups that it changes by itself.
constexpr std::array<std::string_view, 4> kLocalChanges = {
    "uccp.internal.v1.AgentLink/PutBlob", "uccp.internal.v1.CertificateLink/Sign",
    "uccp.internal.v1.CertificateLink/Report", "uccp.v1.EventBus/Publish"};
// Changed by who leads the group that coordinates transactions over topics, which is bus-0.
constexpr std::array<std::string_view, 3> kOfTransactions = {
    "uccp.v1.EventBus/BeginTransaction", "uccp.v1.EventBus/CommitTransaction", "uccp.v1.EventBus/AbortTransaction"};
constexpr GroupId kTransactionGroup{16};
// In the requests that say where they are served.
constexpr uint32_t kProposeGroup = 1;
constexpr uint32_t kSubscribeSubscription = 3;

}  // namespace

Placement placement_of(const Method& method) {
  Placement placement;
  if (method.service == "uccp.internal.v1.NodeLink") return placement;
  if (std::ranges::find(kWorkServices, method.service) != kWorkServices.end()) placement.group = kWorkGroup;
  if (std::ranges::find(kOfTransactions, method.full_name) != kOfTransactions.end()) {
    placement.group = kTransactionGroup;
  }
  placement.leader_only =
      (method.mutating || std::ranges::find(kLeaderReads, method.full_name) != kLeaderReads.end()) &&
      std::ranges::find(kLocalChanges, method.full_name) == kLocalChanges.end();
  return placement;
}

Placement placement_of(const Method& method, std::string_view request) {
  Placement placement = placement_of(method);
  const bool propose = method.full_name == kProposeMethod;
  if (!propose && method.full_name != kSubscribeMethod) return placement;
  placement.leader_only = propose;
  WireReader reader(request);
  for (WireField field; reader.next(field);) {
    if (propose && field.number == kProposeGroup) placement.group = GroupId(field.value);
    // What a stream without a name reads, every node has.
    if (!propose && field.number == kSubscribeSubscription) placement.leader_only = !field.bytes.empty();
  }
  return placement;
}

}  // namespace uccp::call
