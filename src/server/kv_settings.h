// The settings of the key-value store.
#pragma once

#include "base/status.h"
#include "server/config.h"
#include "services/kv/kv_service.h"

namespace uccp::server {

// Errors: invalid CONFIG_INVALID naming the setting and what it may be.
Result<kv::KvOptions> kv_settings(const Config& config);

}  // namespace uccp::server
