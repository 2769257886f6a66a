// The methods of Administration about the audit trail: SearchAudit, ExportAudit and VerifyAudit. docs/audit.md.
//
// Both read much, so they run on the `work` executor, never on the loop. Must outlive every call. No state of its own;
// callable from any thread.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/change_types.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::audit {

// Everything must outlive the service.
struct AuditEnvironment {
  machine::Reader& reader;
  Executor& work;
  const Clock& clock;
  const call::PageTokenSigner& page_tokens;
  // Name and id of each group that keeps a trail.
  std::vector<std::pair<std::string, GroupId>> groups = {{"core", kCoreGroup}, {"work", kWorkGroup}};
};

class AuditService {
 public:
  explicit AuditService(AuditEnvironment environment) : env_(std::move(environment)) {}
  void add_handlers(call::HandlerTable& handlers);
  // "$sys.audit", once for each group that keeps a trail.
  std::vector<services::ChangeTopic> change_topics() const;

 private:
  using Views = std::vector<machine::GroupView>;  // in the order of env_.groups
  using OnViews = std::move_only_function<void(Result<Views>)>;

  // Reads one view of each group, then runs `done` on the executor.
  void read_all(const machine::ReadLevel& level, OnViews done);
  void read_next(const machine::ReadLevel& level, Views views, OnViews done);
  void search(const call::CallPtr& call, const std::string& bytes);
  Result<call::Page> page_of(const call::Call& call, const call::ListQuery& query,
                             const v1::SearchAuditRequest& request, const Views& views) const;
  void export_records(const call::CallPtr& call, const std::string& since);
  void verify(const call::CallPtr& call, const v1::VerifyAuditRequest& request);
  v1::AuditTrail verified(const std::string& group, const machine::GroupView& view,
                          const v1::VerifyAuditRequest& request) const;

  const AuditEnvironment env_;
};

}  // namespace uccp::audit
