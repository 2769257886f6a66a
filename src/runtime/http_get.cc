#include "runtime/http_get.h"

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

std::unexpected<Status> failed(const std::string& url, const std::string& why) {
  return fail(Code::kUnavailable, "HTTP_FETCH_FAILED", url + " cannot be fetched: " + why);
}

}  // namespace

Result<std::string> http_get(const std::string& url, const HttpGetOptions& options) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready != CURLE_OK) return failed(url, curl_easy_strerror(ready));
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(), curl_easy_cleanup);
  if (!handle) return failed(url, "out of memory");
  Body body{.bytes = {}, .max = options.bytes_max};
  CURL* curl = handle.get();
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_ms));
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &take);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
  if (!options.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, options.ca_file.c_str());
  const CURLcode done = curl_easy_perform(curl);
  if (done != CURLE_OK) return failed(url, curl_easy_strerror(done));
  return std::move(body.bytes);
}

}  // namespace uccp::runtime
