// SetQuota, GetQuota, ListQuotas, DeleteQuota: validate, propose, read. Handlers run on door threads.
#pragma once

#include <functional>

#include "base/clock.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/work_types.h"

namespace uccp::quotas {

struct QuotasEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  // Lays what is used now over a stored quota.
  std::function<void(const std::string& tenant, v1::ResourceQuota&)> overlay;
  std::function<uint32_t()> feature_level;
  const Clock& clock;
  const call::PageTokenSigner& page_tokens;
};

class QuotasService {
 public:
  explicit QuotasService(QuotasEnvironment environment) : env_(std::move(environment)) {}
  void register_handlers(call::HandlerTable& handlers);

 private:
  void set(const call::CallPtr& call, std::string request);
  void get(const call::CallPtr& call, const v1::GetQuotaRequest& request);
  void list(const call::CallPtr& call, std::string request);
  void remove(const call::CallPtr& call, std::string request);

  QuotasEnvironment env_;
};

// Whether the quota says what it limits, and only what is enforced.
Status check_quota(const v1::ResourceQuota& quota);

}  // namespace uccp::quotas
