// A bucket of S3, or of a server that speaks as S3 does, as a place behind the disk.
#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/http_call.h"
#include "runtime/real_clock.h"
#include "shm/s3_signature.h"
#include "shm/tier.h"

namespace uccp::shm {
namespace {

constexpr const char* kRegion = "us-east-1";
constexpr size_t kAnswerBytesMax = 64u << 20;
constexpr size_t kNameBytesMax = 255;

class S3Tier final : public Tier {
 public:
  S3Tier(S3Keys keys, std::string endpoint, std::string bucket, std::string prefix, const TierOptions& options)
      : keys_(std::move(keys)),
        endpoint_(std::move(endpoint)),
        host_(endpoint_.substr(endpoint_.find("://") + 3)),
        bucket_(std::move(bucket)),
        prefix_(std::move(prefix)),
        ca_file_(options.ca_file),
        timeout_ms_(options.timeout_ms),
        name_("s3://" + bucket_ + " at " + endpoint_) {}

  const std::string& name() const override { return name_; }

  Status put(const std::string& key, std::string_view content) override {
    UCCP_RETURN_IF_ERROR(ask("PUT", path_of(key), {}, content));
    return {};
  }

  Result<std::string> get(const std::string& key) override { return ask("GET", path_of(key), {}, {}); }

  Status remove(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) {
      const auto removed = ask("DELETE", path_of(key), {}, {});
      if (!removed && removed.error().code() != Code::kNotFound) return removed.error();
    }
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& prefix) override {
    UCCP_TRY(const std::string xml, ask("GET", "/" + bucket_, {{"list-type", "2"}, {"prefix", prefix_ + prefix}}, {}));
    auto keys = listed_keys(xml);
    if (!keys) return fail(Code::kUnavailable, "TIER_UNAVAILABLE", name_ + ": " + std::string(keys.error().message()));
    for (std::string& key : *keys) key = key.substr(std::min(key.size(), prefix_.size()));
    return keys;
  }

 private:
  std::string path_of(const std::string& key) const { return "/" + bucket_ + "/" + url_encoded(prefix_ + key, true); }

  Result<std::string> ask(const char* method, std::string path, std::map<std::string, std::string> query,
                          std::string_view body) {
    const S3Request request{.method = method,
                            .host = host_,
                            .path = std::move(path),
                            .query = std::move(query),
                            .body_sha256 = to_hex(sha256(body)),
                            .headers = {{"content-type", "application/octet-stream"}}};
    const std::string arguments = query_of(request);
    auto answer = runtime::http_call({.method = method,
                                      .url = endpoint_ + request.path + (arguments.empty() ? "" : "?" + arguments),
                                      .headers = signed_headers(request, keys_, clock_.wall()),
                                      .body = body,
                                      .ca_file = ca_file_,
                                      .timeout_ms = timeout_ms_,
                                      .answer_bytes_max = kAnswerBytesMax});
    if (!answer)
      return fail(Code::kUnavailable, "TIER_UNAVAILABLE", name_ + ": " + std::string(answer.error().message()));
    if (answer->status / 100 == 2) return std::move(answer->body);
    return std::unexpected(refusal(*answer, request));
  }

  Status refusal(const runtime::HttpAnswer& answer, const S3Request& request) const {
    const S3Error error = error_in(answer.body);
    const std::string message = name_ + ": " + request.method + " " + request.path + ": " +
                                std::to_string(answer.status) + " " + error.code + " " + error.message;
    if (error.code == "NoSuchBucket") return Status(Code::kFailedPrecondition, "TIER_MISCONFIGURED", message);
    if (answer.status == 404) return Status(Code::kNotFound, "OBJECT_MISSING", message);
    if (answer.status == 401 || answer.status == 403) return Status(Code::kPermission, "TIER_REFUSED", message);
    if (answer.status == 507 || error.code == "QuotaExceeded") return Status(Code::kExhausted, "TIER_FULL", message);
    return answer.status / 100 == 5 || answer.status == 429
               ? Status(Code::kUnavailable, "TIER_UNAVAILABLE", message)
               : Status(Code::kFailedPrecondition, "TIER_MISCONFIGURED", message);
  }

  const S3Keys keys_;
  const std::string endpoint_, host_, bucket_, prefix_, ca_file_;
  const int64_t timeout_ms_;
  const std::string name_;
  const runtime::RealClock clock_;
};

bool is_name(std::string_view text, std::string_view also) {
  return text.size() <= kNameBytesMax && std::ranges::all_of(text, [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || also.contains(c);
         });
}

}  // namespace

Result<std::unique_ptr<Tier>> open_s3_tier(const TierOptions& options, std::string_view rest) {
  const auto invalid = [&](const std::string& why) {
    return fail(Code::kInvalid, "TIER_INVALID", "\"" + options.url + "\" is no bucket: " + why);
  };
  std::string endpoint, region = kRegion;
  const size_t mark = rest.find('?');
  std::string_view query = mark == std::string_view::npos ? "" : rest.substr(mark + 1);
  rest = rest.substr(0, mark);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.starts_with("endpoint=")) endpoint = pair.substr(9);
    else if (pair.starts_with("region=")) region = pair.substr(7);
    else return invalid("behind ? there may be endpoint=URL and region=NAME");
  }
  if (!is_name(region, "-") || region.empty()) return invalid("the region is none");
  if (endpoint.empty()) endpoint = "https://s3." + region + ".amazonaws.com";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  const size_t scheme = endpoint.starts_with("http://") ? 7 : endpoint.starts_with("https://") ? 8 : 0;
  if (scheme == 0 || endpoint.size() == scheme || !is_name(endpoint.substr(scheme), "-.:[]"))
    return invalid("the endpoint is http://HOST:PORT or https://HOST:PORT");
  const size_t slash = rest.find('/');
  const std::string bucket(rest.substr(0, slash));
  std::string prefix(slash == std::string_view::npos ? "" : rest.substr(slash + 1));
  if (bucket.empty() || !is_name(bucket, "-.")) return invalid("a bucket has letters, digits, - and .");
  if (!is_name(prefix, "-._/")) return invalid("a prefix has letters, digits, - . _ and /");
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  if (options.user.empty() || options.secret.empty())
    return invalid("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be set");
  return std::make_unique<S3Tier>(S3Keys{.access = options.user, .secret = options.secret, .region = region},
                                  std::move(endpoint), bucket, std::move(prefix), options);
}

}  // namespace uccp::shm
