#include "server/resources_side.h"

namespace uccp::server {

ResourcesSide::ResourcesSide(Environment e, call::HandlerTable& handlers)
    : quotas_({.proposer = e.node,
               .reader = e.node,
               .overlay = [&live = e.live](const std::string& tenant,
                                           v1::ResourceQuota& quota) { live.overlay(tenant, quota); },
               .feature_level = [&node = e.node] { return node.feature_level(); },
               .clock = e.clock,
               .page_tokens = e.page_tokens}),
      resources_({.reader = e.node, .live = e.live, .runtime = e.work, .loop = e.loop, .clock = e.clock}) {
  quotas_.register_handlers(handlers);
  resources_.register_handlers(handlers);
}

}  // namespace uccp::server
