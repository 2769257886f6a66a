#include "doors/rest/problem.h"

#include <array>
#include <string>
#include <utility>

#include "call/error_json.h"

namespace uccp::doors {

int http_status_of(const Status& status) {
  static constexpr std::array<std::pair<std::string_view, int>, 7> kOwn = {{{"METHOD_NOT_ALLOWED", 405},
                                                                            {"REQUEST_TIMEOUT", 408},
                                                                            {"ETAG_MISMATCH", 412},
                                                                            {"REQUEST_TOO_LARGE", 413},
                                                                            {"MEDIA_TYPE_UNSUPPORTED", 415},
                                                                            {"HEADER_TOO_LARGE", 431},
                                                                            {"CONNECTIONS_EXHAUSTED", 503}}};
  for (const auto& [reason, http] : kOwn) {
    if (status.reason() == reason) return http;
  }
  return code_info(status.code()).http;
}

std::string problem_json(const Status& status, std::string_view call_id) {
  std::string json = call::to_problem_json(status, call_id);
  const std::string by_code = "\"status\":" + std::to_string(code_info(status.code()).http);
  if (const size_t at = json.find(by_code); at != std::string::npos) {
    json.replace(at, by_code.size(), "\"status\":" + std::to_string(http_status_of(status)));
  }
  return json;
}

HttpResponse problem_response(const Status& status, std::string_view call_id) {
  HttpResponse response;
  response.status = http_status_of(status);
  response.headers = {{"Content-Type", "application/problem+json"},
                      {"Cache-Control", "no-store"},
                      {"X-Content-Type-Options", "nosniff"}};
  if (!call_id.empty()) response.headers.emplace_back("X-Request-Id", call_id);
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"uccp\"");
  if (const uint32_t ms = status.detail().retry_after_ms; ms > 0) {
    response.headers.emplace_back("Retry-After", std::to_string((ms + 999) / 1000));
  }
  response.body = problem_json(status, call_id);
  return response;
}

}  // namespace uccp::doors
