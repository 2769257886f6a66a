// The services of one process that clients of the simulation call: discovery, locks, elections and the key-value store,
// as they ship, behind their handlers. What is left out is the pipeline before them, which decides nothing about the
// state.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "node/node.h"
#include "services/discovery/discovery_service.h"
#include "services/elections/elections_service.h"
#include "services/events/events_service.h"
#include "services/kv/kv_service.h"
#include "services/kv/kv_sweeper.h"
#include "services/locks/locks_service.h"

namespace uccp::sim {

struct ServiceCall {
  const call::Method* method = nullptr;
  std::string request;
  std::string principal;
  std::string request_id;
  int64_t deadline_ms = 1000;
  machine::ReadLevel level;
};

class SimServices {
 public:
  using Reply = std::function<void(Result<machine::Applied>)>;

  // Everything must outlive the services.
  struct Environment {
    node::Node& node;
    machine::Proposer& anywhere;  // to the leader of the group, wherever it is
    Executor& loop;
    Executor& work;
    Executor& watch;  // where changes come
    const Clock& clock;
    MetricsRegistry& metrics;
  };
  // `bus_groups`: of the event bus; 0: there is none.
  SimServices(const Environment& environment, uint64_t seed, uint32_t bus_groups);
  // The node runs.
  void start();

  // `reply` gets the serialized answer, without an index.
  void call(const ServiceCall& call, Reply reply);
  // A stream from the server. Both come from executors of the node; after cancel() or the end nothing comes.
  class Stream {
   public:
    virtual ~Stream() = default;
    virtual void item(std::string message) = 0;
    virtual void ended(const Status& status) = 0;
  };
  std::shared_ptr<call::Call> open(const ServiceCall& call, std::shared_ptr<Stream> stream);
  // From the node.
  void on_leadership(GroupId group, bool leads);

 private:
  std::shared_ptr<call::Call> begin(const ServiceCall& call, std::shared_ptr<call::Sink> sink);

  const Clock& clock_;
  SeededRandom random_;
  call::PageTokenSigner page_tokens_{"simulated"};
  discovery::DiscoveryService discovery_;
  locks::LocksService locks_;
  elections::ElectionsService elections_;
  kv::KvSweeper sweeper_;
  kv::KvService kv_;
  std::unique_ptr<events::EventsService> events_;
  call::HandlerTable handlers_;
};

}  // namespace uccp::sim
