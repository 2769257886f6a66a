// Errors as HTTP answers (RFC 9457). Private to this folder.
#pragma once

#include <string_view>

#include "base/status.h"
#include "doors/rest/http.h"

namespace uccp::doors {

// The HTTP status of an error: that of its code, except for reasons that HTTP has a status of its own for.
int http_status_of(const Status& status);
// The problem document, with the status that is really sent.
std::string problem_json(const Status& status, std::string_view call_id);
// problem+json with Retry-After and WWW-Authenticate where they apply.
HttpResponse problem_response(const Status& status, std::string_view call_id);

}  // namespace uccp::doors
