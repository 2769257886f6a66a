#include "runtime/http_get.h"

#include "runtime/http_call.h"

namespace uccp::runtime {
namespace {

constexpr long kFirstErrorStatus = 400;

}  // namespace

Result<std::string> http_get(const std::string& url, const HttpGetOptions& options) {
  const auto failed = [&](const std::string& why) {
    return fail(Code::kUnavailable, "HTTP_FETCH_FAILED", url + " cannot be fetched: " + why);
  };
  auto answer = http_call({.url = url,
                           .ca_file = options.ca_file,
                           .timeout_ms = options.timeout_ms,
                           .answer_bytes_max = options.bytes_max});
  if (!answer) return failed(std::string(answer.error().message()));
  if (answer->status >= kFirstErrorStatus) return failed("the answer is " + std::to_string(answer->status));
  return std::move(answer->body);
}

}  // namespace uccp::runtime
