#include "runtime/http_call.h"

#include <curl/curl.h>

#include <memory>

namespace uccp::runtime {
namespace {

struct Body {
  std::string bytes;
  size_t max;
};

size_t take(char* data, size_t size, size_t count, void* to) {
  Body& body = *static_cast<Body*>(to);
  if (body.bytes.size() + size * count > body.max) return 0;
  body.bytes.append(data, size * count);
  return size * count;
}

}  // namespace

Result<HttpAnswer> http_call(const HttpCall& call) {
  const auto failed = [&](CURLcode code) {
    return fail(Code::kUnavailable, "HTTP_CALL_FAILED",
                call.method + " " + call.url + " has no answer: " + curl_easy_strerror(code));
  };
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready != CURLE_OK) return failed(ready);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(), curl_easy_cleanup);
  if (!handle) return failed(CURLE_OUT_OF_MEMORY);
  curl_slist* list = curl_slist_append(nullptr, "Expect:");  // no round trip before the body
  for (const auto& [name, value] : call.headers) list = curl_slist_append(list, (name + ": " + value).c_str());
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, curl_slist_free_all);
  Body body{.bytes = {}, .max = call.answer_bytes_max};
  CURL* curl = handle.get();
  curl_easy_setopt(curl, CURLOPT_URL, call.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(call.timeout_ms));
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &take);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
  if (!call.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, call.ca_file.c_str());
  if (call.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (call.method != "GET") {
    // With a body, if only an empty one, and under the name that was asked for.
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call.method.c_str());
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call.body.data() == nullptr ? "" : call.body.data());
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body.size()));
  }
  const CURLcode done = curl_easy_perform(curl);
  if (done != CURLE_OK) return failed(done);
  HttpAnswer answer{.status = 0, .body = std::move(body.bytes)};
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
  return answer;
}

}  // namespace uccp::runtime
