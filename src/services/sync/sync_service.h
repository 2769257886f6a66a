// The methods of barriers and latches: validate, propose, wait, read.
//
// Must outlive every call. Callable from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "call/handler.h"
#include "machine/ports.h"
#include "services/coordination_types.h"
#include "services/coordination_waits.h"
#include "services/sync/sync_state.h"
#include "uccp/v1/coordination.pb.h"

namespace uccp::sync {

// Everything must outlive the service.
struct SyncEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  machine::Leases& leases;
  Executor& work;
  const Clock& clock;
};

class SyncService {
 public:
  explicit SyncService(SyncEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);

 private:
  struct Party;
  struct LatchWait;

  void wait_barrier(const call::CallPtr& call, std::string bytes);
  void get_barrier(const call::CallPtr& call, const v1::GetBarrierRequest& request);
  void reset_barrier(const call::CallPtr& call, std::string bytes);
  void create_latch(const call::CallPtr& call, std::string bytes);
  void count_down_dry(const call::CallPtr& call, const std::string& bytes);
  void count_down(const call::CallPtr& call, std::string bytes);
  void wait_latch(const call::CallPtr& call, const v1::WaitLatchRequest& request);
  void delete_latch(const call::CallPtr& call, std::string bytes);

  void wait(const std::shared_ptr<Party>& party, LogIndex since);
  void look(const std::shared_ptr<Party>& party, uint64_t wait_id, LogIndex since);
  void wait_ended(const std::shared_ptr<Party>& party, coordination::Waits::End why, const machine::Change* change);
  void withdraw(const std::shared_ptr<Party>& party, bool answer);
  void passed(const std::shared_ptr<Party>& party, const internal::v1::BarrierPast& past);
  void answer_latch(const std::shared_ptr<LatchWait>& wait, const machine::GroupView& view, bool may_wait);

  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& payload, std::function<void(machine::Applied)> done);

  SyncEnvironment env_;
  const std::shared_ptr<coordination::Waits> waits_;
};

}  // namespace uccp::sync
