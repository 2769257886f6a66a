// GetClusterResources, ExplainQuota, GetResourceUsage: what there is, who uses it, what it costs. Door threads.
#pragma once

#include <string>

#include "call/handler.h"
#include "machine/ports.h"
#include "services/tasks/live_tasks.h"
#include "services/tasks/work_runtime.h"
#include "uccp/v1/resources.pb.h"

namespace uccp::tasks {

struct ResourcesEnvironment {
  machine::Reader& reader;
  LiveTasks& live;
  WorkRuntime& runtime;
  Executor& loop;
  const Clock& clock;
};

class ResourcesService {
 public:
  explicit ResourcesService(ResourcesEnvironment environment) : env_(environment) {}
  void register_handlers(call::HandlerTable& handlers);

 private:
  void cluster(const call::CallPtr& call, const v1::GetClusterResourcesRequest& request);
  void explain(const call::CallPtr& call, const v1::ExplainQuotaRequest& request);
  void usage(const call::CallPtr& call, const v1::GetResourceUsageRequest& request);

  ResourcesEnvironment env_;
};

// What is limited, or used, as the contract writes it.
void set_limits(v1::QuotaLimits& out, const QuotaAmounts& amounts);

struct DominantShare {
  const char* resource = "cpu";
  double share = 0;
};
// Of what of its worker an attempt holds the largest share.
DominantShare dominant_share(const Shape& shape, const Shape& capacity);

}  // namespace uccp::tasks
