#include "shm/tier.h"

namespace uccp::shm {

Result<std::unique_ptr<Tier>> open_tier(const TierOptions& options) {
  const std::string_view url = options.url;
  for (const auto& [scheme, tls] : {std::pair<std::string_view, bool>("redis://", false), {"rediss://", true}}) {
    if (url.starts_with(scheme)) return open_redis_tier(options, url.substr(scheme.size()), tls);
  }
  constexpr std::string_view kS3 = "s3://";
  if (url.starts_with(kS3)) return open_s3_tier(options, url.substr(kS3.size()));
  return fail(Code::kInvalid, "TIER_INVALID",
              "\"" + options.url +
                  "\" is no place for objects; it is redis://HOST:PORT, rediss://HOST:PORT or "
                  "s3://BUCKET/PREFIX?endpoint=URL");
}

}  // namespace uccp::shm
