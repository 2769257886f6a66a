// The services of one process that clients of the simulation call: locks and elections, as they ship, behind their
// handlers. What is left out is the pipeline before a handler, which decides nothing about the state.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "node/node.h"
#include "services/elections/elections_service.h"
#include "services/locks/locks_service.h"

namespace uccp::sim {

struct ServiceCall {
  const call::Method* method = nullptr;
  std::string request;
  std::string principal;
  std::string request_id;
  int64_t deadline_ms = 1000;
};

class SimServices {
 public:
  using Reply = std::function<void(Result<machine::Applied>)>;

  // Everything must outlive the services.
  SimServices(node::Node& node, Executor& timers, const Clock& clock, uint64_t seed, MetricsRegistry& metrics);

  // `reply` gets the serialized answer, without an index.
  void call(const ServiceCall& call, Reply reply);

 private:
  const Clock& clock_;
  SeededRandom random_;
  call::PageTokenSigner page_tokens_{"simulated"};
  locks::LocksService locks_;
  elections::ElectionsService elections_;
  call::HandlerTable handlers_;
};

}  // namespace uccp::sim
