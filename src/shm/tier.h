// A place behind the disk for objects that do not fit into this machine: contents by key, in a system outside.
//
// Thread: any; calls block.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::shm {

class Tier {
 public:
  virtual ~Tier() = default;
  // Its address, without secrets.
  virtual const std::string& name() const = 0;
  // All errors but OBJECT_MISSING are failures of the tier: unavailable TIER_UNAVAILABLE, permission TIER_REFUSED,
  // exhausted TIER_FULL, failed_precondition TIER_MISCONFIGURED. Their messages name it.
  virtual Status put(const std::string& key, std::string_view content) = 0;
  // Errors: also not_found OBJECT_MISSING.
  virtual Result<std::string> get(const std::string& key) = 0;
  // What is not there is ignored.
  virtual Status remove(const std::vector<std::string>& keys) = 0;
  // Some of the keys that begin so; none: there are no more. Whoever wants all removes these and asks again.
  virtual Result<std::vector<std::string>> list(const std::string& prefix) = 0;
};

struct TierOptions {
  // redis://[USER@]HOST:PORT[/NUMBER], rediss://... with TLS, or
  // s3://BUCKET[/PREFIX][?endpoint=http(s)://HOST:PORT&region=NAME].
  std::string url;
  std::string user, secret;  // of S3 its two keys; of Redis the password
  std::string ca_file;       // PEM, of its TLS; empty: the system's authorities
  int64_t timeout_ms = 10'000;
};

// Does not connect yet. Errors: invalid TIER_INVALID.
Result<std::unique_ptr<Tier>> open_tier(const TierOptions& options);

// Of open_tier(); the part of the URL behind its scheme.
Result<std::unique_ptr<Tier>> open_redis_tier(const TierOptions& options, std::string_view rest, bool tls);
Result<std::unique_ptr<Tier>> open_s3_tier(const TierOptions& options, std::string_view rest);

}  // namespace uccp::shm
