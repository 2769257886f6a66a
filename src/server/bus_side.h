// Everything of a node that has to do with the event bus, put together: the groups bus-*, proposals to their leaders on
// other nodes, the service.
//
// Built and ended on the main thread, before the doors open and after they are closed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "call/forward.h"
#include "call/handler.h"
#include "node/node.h"
#include "server/config.h"
#include "services/events/bus_state.h"
#include "services/events/events_service.h"
#include "services/events/topics_state.h"
#include "services/events/transactions_state.h"

namespace uccp::server {

struct BusSideEnvironment {
  node::Node& node;
  Executor& loop;
  Executor& events;
  Executor& reads;
  const Clock& clock;
  MetricsRegistry& metrics;
  const call::PageTokenSigner& page_tokens;
};

// Errors: invalid CONFIG_INVALID naming the setting and what it may be.
Result<events::EventsOptions> bus_settings(const Config& config);

class BusSide {
 public:
  explicit BusSide(events::EventsOptions options);
  ~BusSide();

  // Before the node is built.
  machine::Domain& topics() { return topics_; }
  std::vector<node::GroupSpec> groups();
  std::vector<GroupId> group_ids() const;
  // After the node is built and before it runs; adds the handlers of this node. `doors` are those that forward to
  // leaders, filled later; they must outlive the bus.
  void build(const BusSideEnvironment& environment, call::HandlerTable& handlers, const call::HandlerTable& doors);
  // Proposes to the leader of a group, wherever it is.
  machine::Proposer& anywhere();
  // Before the doors open: the topics "$sys.>", and whether a principal may do in a namespace what a permission says.
  void show_changes(std::vector<services::ChangeTopic> topics, events::Streams::May may) {
    service_->show_changes(std::move(topics), std::move(may));
  }
  // The node runs.
  void start() { service_->start(); }
  // From the node's callbacks.
  void on_core_leadership(bool leads) { service_->on_core_leadership(leads); }
  void on_leadership(GroupId group, bool leads) { service_->on_leadership(group, leads); }

 private:
  class Remote;

  const events::EventsOptions options_;
  events::TopicsState topics_;
  events::BusState bus_;
  events::TransactionsState transactions_;
  std::unique_ptr<Remote> remote_;
  std::unique_ptr<events::EventsService> service_;
};

}  // namespace uccp::server
