// ExportAudit: sends what the caller may see of some trails, each oldest first, no faster than the client takes it.
// Runs on the executor; the call keeps it until it ends.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "call/call.h"
#include "machine/machine.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::audit {

// A record as it is shown, and whether to this caller.
v1::AuditRecord public_record(const std::string& group, const machine::AuditRecord& record);
bool may_see(const call::Principal& principal, const machine::AuditRecord& record);
// "core-17:9f86…" of the newest record; empty: there is none.
std::string anchor_of(const std::string& group, const machine::AuditSpan& span);

struct ExportedTrail {
  std::string group;
  machine::GroupView view;
  machine::AuditSpan span;
  uint64_t next = 0;  // number of the record that comes next
};

class AuditExporter : public std::enable_shared_from_this<AuditExporter> {
 public:
  // `trails` as they are now, from their beginning. Errors: invalid CURSOR_INVALID; failed_precondition
  // CURSOR_COMPACTED.
  static Status start(Executor& work, const call::CallPtr& call, std::vector<ExportedTrail> trails,
                      const std::string& since);

 private:
  AuditExporter(Executor& work, const call::CallPtr& call, std::vector<ExportedTrail> trails)
      : work_(work), call_(call), trails_(std::move(trails)) {}
  Status go_to(const std::string& since);
  void pump();
  void end(const call::CallPtr& call);
  std::string cursor() const;

  Executor& work_;
  const std::weak_ptr<call::Call> call_;  // which keeps this
  std::vector<ExportedTrail> trails_;
  size_t at_ = 0;
};

}  // namespace uccp::audit
