// The methods of locks and semaphores: validate, propose, wait, read.
//
// A call that has to wait is one command in the log, then a row in the queue: the node that holds the call keeps that
// row alive and answers when the change comes that grants it. Who asks again with the same request id attaches to the
// same row. Must outlive every call and the metrics registry's scrapes. Callable from any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/change_types.h"
#include "services/coordination_types.h"
#include "services/coordination_waits.h"
#include "services/locks/locks_state.h"
#include "uccp/v1/coordination.pb.h"

namespace uccp::locks {

// Everything must outlive the service.
struct LocksEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  machine::Leases& leases;
  Executor& work;
  const Clock& clock;
  Random& random;  // the service's own: it is used from all threads, under the service's lock. Secrets come from it.
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
  // May the principal do that: for what depends on the request, such as preemption.
  std::function<bool(const call::Principal&, std::string_view permission)> permits;
  std::function<uint32_t()> feature_level = {};  // of the cluster; none: the newest
};

class LocksService {
 public:
  explicit LocksService(LocksEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);
  // "$sys.locks"
  services::ChangeTopic change_topic() const;

 private:
  struct Acquisition;
  using OnView = std::move_only_function<void(const call::CallPtr&, machine::GroupView)>;
  using OnApplied = std::move_only_function<void(const call::CallPtr&, machine::Applied)>;

  void acquire_lock(const call::CallPtr& call, std::string bytes);
  void try_lock(const call::CallPtr& call, std::string bytes);
  void acquire_read_lock(const call::CallPtr& call, std::string bytes);
  void acquire_semaphore(const call::CallPtr& call, std::string bytes);
  void release_lock(const call::CallPtr& call, std::string bytes);
  void release_semaphore(const call::CallPtr& call, std::string bytes);
  void transfer(const call::CallPtr& call, std::string bytes);
  void break_lock(const call::CallPtr& call, std::string bytes);
  void renew_lock(const call::CallPtr& call, const v1::RenewLockRequest& request);
  void renew_semaphore(const call::CallPtr& call, const v1::RenewSemaphoreRequest& request);
  void get_lock(const call::CallPtr& call, const v1::GetLockRequest& request);
  void get_semaphore(const call::CallPtr& call, const v1::GetSemaphoreRequest& request);
  void check_token(const call::CallPtr& call, const v1::CheckFencingTokenRequest& request);
  void statistics(const call::CallPtr& call, const v1::GetLockStatisticsRequest& request);
  void list(const call::CallPtr& call, std::string bytes, internal::v1::PermitKind kind, std::string prefix);
  void watch(const call::CallPtr& call, const v1::WatchLocksRequest& request);

  // Acquiring (locks_acquire.cc): the command, then the wait.
  static std::string wait_key(uint64_t waiter);
  std::shared_ptr<Acquisition> begin(const call::CallPtr& call, internal::v1::PermitKind kind, const std::string& name,
                                     const std::string& owner, int64_t ttl_ms);
  void acquire(const std::shared_ptr<Acquisition>& a, std::string bytes);
  void confirm(const std::shared_ptr<Acquisition>& a, const internal::v1::AcquireResult& result, LogIndex index);
  void refused(const std::shared_ptr<Acquisition>& a, Status status);
  void wait(const std::shared_ptr<Acquisition>& a, LogIndex since);
  void wait_ended(const std::shared_ptr<Acquisition>& a, coordination::Waits::End why, const machine::Change* change);
  void look(const std::shared_ptr<Acquisition>& a, uint64_t wait_id, LogIndex since);
  void look_again(const std::shared_ptr<Acquisition>& a);
  void abandon(const std::shared_ptr<Acquisition>& a, bool answer);
  void granted(const std::shared_ptr<Acquisition>& a, const internal::v1::PermitHolder& holder,
               const internal::v1::PermitRow& row);
  void gave_up(const std::shared_ptr<Acquisition>& a);

  // Renewing: `answer` gets the holder with its present ttl.
  using OnRenewed = std::function<void(const internal::v1::PermitRow&, const internal::v1::PermitHolder&)>;
  struct Renewal {
    internal::v1::PermitKind kind;
    std::string name;
    coordination::LeaseProof proof;
    int64_t ttl_ms;
    OnRenewed answer;
  };
  void renew(const call::CallPtr& call, Renewal renewal, const machine::ReadLevel& level);

  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& payload, OnApplied done);
  // A command of the node itself, without a caller to answer.
  void propose_quietly(const machine::Scope& scope, std::string_view verb, const google::protobuf::MessageLite& payload,
                       machine::Proposer::Done done);
  void read(const call::CallPtr& call, OnView on_view);
  uint64_t draw();

  LocksEnvironment env_;
  coordination::LeaseTimes times_;
  const std::shared_ptr<coordination::Waits> waits_;
  Histogram& wait_seconds_;
  Counter& contended_;
  Counter& timeouts_;
  Counter& deadlocks_;
  std::mutex random_mutex_;
};

}  // namespace uccp::locks
