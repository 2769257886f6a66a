// The services of quotas and resources, put together.
#pragma once

#include "call/handler.h"
#include "call/listing.h"
#include "node/node.h"
#include "services/quotas/quotas_service.h"
#include "services/tasks/resources_service.h"

namespace uccp::server {

class ResourcesSide {
 public:
  struct Environment {
    node::Node& node;
    tasks::LiveTasks& live;
    tasks::WorkRuntime& work;
    Executor& loop;
    const Clock& clock;
    const call::PageTokenSigner& page_tokens;
  };
  ResourcesSide(Environment environment, call::HandlerTable& handlers);

 private:
  quotas::QuotasService quotas_;
  tasks::ResourcesService resources_;
};

}  // namespace uccp::server
