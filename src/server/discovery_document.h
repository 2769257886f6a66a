// The discovery document of an OpenID Connect issuer (OpenID Connect Discovery 1.0, section 4).
#pragma once

#include <string>

#include "base/status.h"

namespace uccp::server {

// Where the issuer's keys are. The document has to be that of the issuer that was asked for (4.3). Errors: invalid
// DISCOVERY_INVALID.
Result<std::string> keys_url(const std::string& json, const std::string& issuer);

}  // namespace uccp::server
