#include "sim/cluster/sim_services.h"

#include <utility>

#include "base/check.h"

namespace uccp::sim {
namespace {

// Takes one answer, as a unary call has.
class ReplySink final : public call::Sink {
 public:
  explicit ReplySink(SimServices::Reply reply) : reply_(std::move(reply)) {}

  void send(std::string message) override { message_ = std::move(message); }
  void finish(Status status) override {
    if (!status.is_ok()) return reply_(std::unexpected(std::move(status)));
    reply_(machine::Applied{LogIndex(0), std::move(message_)});
  }
  size_t queued_bytes() const override { return 0; }

 private:
  SimServices::Reply reply_;
  std::string message_;
};

class StreamSink final : public call::Sink {
 public:
  explicit StreamSink(std::shared_ptr<SimServices::Stream> stream) : stream_(std::move(stream)) {}

  void send(std::string message) override { stream_->item(std::move(message)); }
  void finish(Status status) override { stream_->ended(status); }
  size_t queued_bytes() const override { return 0; }

 private:
  const std::shared_ptr<SimServices::Stream> stream_;
};

bool permits(const call::Principal&, std::string_view) { return true; }

}  // namespace

SimServices::SimServices(const Environment& e, uint64_t seed, uint32_t bus_groups)
    : clock_(e.clock),
      random_(seed),
      discovery_({}, {e.node, e.node, e.node, e.node, e.work, e.clock, random_, e.metrics, page_tokens_}),
      locks_({e.node, e.node, e.node, e.node, e.work, e.clock, random_, e.metrics, page_tokens_, permits}),
      elections_({e.node, e.node, e.node, e.node, e.work, e.clock, random_, e.metrics, page_tokens_, permits}),
      sweeper_(e.node, e.node, e.loop, e.work),
      kv_({}, {e.node, e.node, e.node, e.node, sweeper_, e.watch, e.work, e.clock, e.metrics, page_tokens_}) {
  discovery_.add_handlers(handlers_);
  locks_.add_handlers(handlers_);
  elections_.add_handlers(handlers_);
  kv_.add_handlers(handlers_);
  if (bus_groups == 0) return;
  events::EventsOptions options;
  options.groups = bus_groups;
  options.keeper.interval_ms = 1'000;
  options.compactor.limits = {.bytes_min = 500, .lag_ms = 2'000};
  options.cleaner.live_percent_min = 60;
  options.cleaner.log_bytes_min = 2'000;
  options.cleaner.pass_bytes = 4'000;
  events_ = std::make_unique<events::EventsService>(
      options,
      events::EventsEnvironment{.local = e.node,
                                .anywhere = e.anywhere,
                                .reader = e.node,
                                .log = e.node,
                                .watcher = e.node,
                                .loop = e.loop,
                                .events = e.watch,
                                .work = e.work,
                                .clock = e.clock,
                                .metrics = e.metrics,
                                .page_tokens = page_tokens_,
                                .leader = [&node = e.node](GroupId group) { return node.known_leader(group); },
                                .feature_level = [&node = e.node] { return node.feature_level(); }});
  events_->add_handlers(handlers_);
}

void SimServices::start() {
  if (events_) events_->start();
}

void SimServices::on_leadership(GroupId group, bool leads) {
  if (group == kCoreGroup) sweeper_.on_leadership(leads);
  if (events_ && group == kCoreGroup) events_->on_core_leadership(leads);
  else if (events_) events_->on_leadership(group, leads);
}

std::shared_ptr<call::Call> SimServices::begin(const ServiceCall& request, std::shared_ptr<call::Sink> sink) {
  const call::Handler* handler = handlers_.find(request.method);
  UCCP_CHECK(handler != nullptr, "the simulation calls what the services handle");
  auto call = std::make_shared<call::Call>();
  call->method = request.method;
  call->sink = std::move(sink);
  call->principal = {.kind = call::Principal::Kind::kUser, .tenant = "t", .name = request.principal};
  call->name_space = "n";
  call->request_id = request.request_id;
  call->credentials.address = request.principal;
  call->read_level = request.level;
  if (request.deadline_ms > 0) call->deadline = clock_.boot().plus_ms(request.deadline_ms);
  (*handler)(call, request.request);
  return call;
}

void SimServices::call(const ServiceCall& request, Reply reply) {
  begin(request, std::make_shared<ReplySink>(std::move(reply)));
}

std::shared_ptr<call::Call> SimServices::open(const ServiceCall& request, std::shared_ptr<Stream> stream) {
  return begin(request, std::make_shared<StreamSink>(std::move(stream)));
}

}  // namespace uccp::sim
