// The methods of the key-value store: validate, propose, read. Long reads are cut into steps on the work executor.
//
// Must outlive every call. Callable from any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/command.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/kv/kv_rows.h"
#include "services/kv/kv_sweeper.h"
#include "services/kv/kv_watch.h"
#include "uccp/internal/v1/kv_state.pb.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// As in the configuration; docs/kv.md has the defaults and why.
struct KvOptions {
  size_t request_bytes_max = 3u << 19;
  uint64_t bytes_max = 2ull << 30;
  uint64_t keys_max = 10'000'000;
  uint64_t leases_max = 1'000'000;
  uint32_t txn_operations_max = 128;
};

// Everything must outlive the service.
struct KvEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  machine::Watcher& watcher;
  machine::Leases& leases;
  KvSweeper& sweeper;
  Executor& events;  // where the watcher's callbacks come
  Executor& work;
  const Clock& clock;
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
};

class KvService {
 public:
  KvService(KvOptions options, KvEnvironment environment);

  void add_handlers(call::HandlerTable& handlers);

 private:
  using OnView = std::move_only_function<void(const call::CallPtr&, machine::GroupView)>;

  void put(const call::CallPtr& call, std::string bytes);
  void get(const call::CallPtr& call, v1::GetRequest request);
  void range(const call::CallPtr& call, v1::RangeRequest request);
  void erase(const call::CallPtr& call, std::string bytes);
  void txn(const call::CallPtr& call, std::string bytes);
  void compact(const call::CallPtr& call, std::string bytes);
  void get_store(const call::CallPtr& call);
  void set_quota(const call::CallPtr& call, std::string bytes);
  void history(const call::CallPtr& call, v1::GetHistoryRequest request);
  void roll_back(const call::CallPtr& call, std::string bytes);
  // A read in steps on the work executor: `Run` is made from the request, the scope and the head.
  template <typename Run, typename Request>
  void read_in_steps(const call::CallPtr& call, Request request);

  void probe_watches(const call::CallPtr& call, const v1::ProbeWatchesRequest& request);

  // kv_leases.cc
  void add_lease_handlers(call::HandlerTable& handlers);
  void grant(const call::CallPtr& call, std::string bytes);
  void revoke(const call::CallPtr& call, std::string bytes);
  void keep_alive(const call::CallPtr& call, int64_t id, const machine::ReadLevel& level);
  void get_lease(const call::CallPtr& call, const v1::GetLeaseRequest& request);
  void list_leases(const call::CallPtr& call, std::string bytes);

  // Proposes kv.`verb`; the call gets the answer of apply.
  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& command);
  using OnApplied = std::move_only_function<void(std::string answer)>;
  void propose(const call::CallPtr& call, std::string_view bytes, std::string_view verb,
               const google::protobuf::MessageLite& command, OnApplied on_applied);
  void read(const call::CallPtr& call, OnView on_view);
  internal::v1::KvLimits limits() const;

  const KvOptions options_;
  KvEnvironment env_;
  const std::shared_ptr<WatchHub> watches_;
};

// What the files of the service share.
inline std::string method_name(std::string_view rpc) { return "uccp.v1.KeyValue/" + std::string(rpc); }
inline machine::Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }
template <typename Request>
std::optional<Request> parse_or_finish(const call::CallPtr& call, std::string_view bytes) {
  auto request = call::parse_request<Request>(bytes);
  if (request) return std::move(*request);
  call->finish(std::move(request.error()));
  return std::nullopt;
}

}  // namespace uccp::kv
