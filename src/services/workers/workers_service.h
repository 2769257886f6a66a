// WorkerManagement: validate, propose, read. Handlers run on door threads.
#pragma once

#include <functional>
#include <mutex>

#include "base/clock.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/change_types.h"
#include "services/work_types.h"

namespace uccp::workers {

struct WorkersEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  // Lays what the leader knows over a stored worker: status, free resources, when it was seen.
  std::function<void(v1::Worker&, const internal::v1::WorkerRow&)> overlay;
  const Clock& clock;
  Random& random;  // used under a lock of the service
  const call::PageTokenSigner& page_tokens;
};

class WorkersService {
 public:
  explicit WorkersService(WorkersEnvironment environment) : env_(std::move(environment)) {}
  void register_handlers(call::HandlerTable& handlers);
  // "$sys.workers"
  services::ChangeTopic change_topic() const;

 private:
  void register_worker(const call::CallPtr& call, std::string request);
  void deregister(const call::CallPtr& call, std::string request);
  void update_resources(const call::CallPtr& call, std::string request);
  void list(const call::CallPtr& call, std::string request);
  void get(const call::CallPtr& call, std::string request);
  struct Cordon {
    std::string id;
    bool cordoned = false;
    std::string reason;
  };
  void set_cordon(const call::CallPtr& call, const std::string& request, Cordon cordon);
  void drain(const call::CallPtr& call, std::string request);
  void update_worker(const call::CallPtr& call, std::string request);
  void update(const call::CallPtr& call, std::string_view request, internal::v1::WorkerUpdateCommand command);
  void propose_row(const call::CallPtr& call, machine::Envelope envelope);
  v1::Worker public_worker(const internal::v1::WorkerRow& row) const;

  WorkersEnvironment env_;
  std::mutex random_mutex_;
};

}  // namespace uccp::workers
