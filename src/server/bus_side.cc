#include "server/bus_side.h"

#include "base/limits.h"
#include "services/events/bus_rows.h"
#include "services/tasks/topic_quotas.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::server {
namespace {

constexpr std::string_view kPropose = "uccp.internal.v1.NodeLink/Propose";
// What the log adds to the events of a command.
constexpr int64_t kCommandOverheadBytes = 256 << 10;

// The sink of a proposal that goes through the handlers.
class Answer final : public call::Sink {
 public:
  explicit Answer(machine::Proposer::Done done) : done_(std::move(done)) {}
  void send(std::string message) override { message_ = std::move(message); }
  void finish(Status status) override {
    if (!status.is_ok()) return done_(std::unexpected(std::move(status)));
    internal::v1::ProposeResponse response;
    if (!response.ParseFromString(message_)) {
      return done_(fail(Code::kInternal, "PROPOSE_ANSWER", "a node answered what is no ProposeResponse"));
    }
    done_(machine::Applied{LogIndex(response.index()), std::move(*response.mutable_response())});
  }
  size_t queued_bytes() const override { return 0; }

 private:
  machine::Proposer::Done done_;
  std::string message_;
};

}  // namespace

Result<events::EventsOptions> bus_settings(const Config& config) {
  events::EventsOptions options;
  const auto command_max = static_cast<int64_t>(limits::kCommandBytesMax) - kCommandOverheadBytes;
  UCCP_TRY(const uint64_t groups, config.integer_between("bus_groups", 1, events::kBusGroupsMax));
  options.groups = static_cast<uint32_t>(groups);
  UCCP_TRY(options.topics_max, config.integer_between("bus_topics_max", 1, int64_t{1} << 30));
  UCCP_TRY(const uint64_t partitions, config.integer_between("bus_partitions_max", 1, 1024));
  options.topic.partitions_max = static_cast<int32_t>(partitions);
  UCCP_TRY(options.topic.message_bytes_max, config.integer_between("bus_message_bytes_max", 1 << 10, command_max));
  UCCP_TRY(options.publisher.request_bytes_max, config.integer_between("bus_request_bytes_max", 1 << 10, command_max));
  options.gatherer.command_bytes_max =
      std::min(options.gatherer.command_bytes_max, options.publisher.request_bytes_max);
  UCCP_TRY(options.gatherer.queue_bytes_max, config.integer_between("bus_queue_bytes_max", 1 << 20, int64_t{1} << 40));
  UCCP_TRY(options.stream.streams_max, config.integer_between("bus_streams_max", 1, 1'000'000));
  UCCP_TRY(options.stream.partitions_max, config.integer_between("bus_stream_partitions_max", 1, 10'000'000));
  UCCP_TRY(options.subscriptions.subscriptions_max, config.integer_between("bus_subscriptions_max", 1, 1'000'000));
  UCCP_TRY(options.compactor.limits.bytes_min, config.integer_between("bus_compaction_bytes_min", 1, int64_t{1} << 40));
  options.keeper.interval_ms = std::max<int64_t>(config.duration_ms("bus_upkeep_interval"), 10);
  options.compactor.limits.lag_ms = config.duration_ms("bus_compaction_lag");
  UCCP_TRY(options.compactor.memory_bytes_max,
           config.integer_between("bus_compaction_memory_bytes_max", 1 << 10, int64_t{1} << 40));
  UCCP_TRY(options.compactor.bytes_per_second,
           config.integer_between("bus_compaction_bytes_per_second", 1 << 10, int64_t{1} << 40));
  UCCP_TRY(const uint64_t live, config.integer_between("bus_log_live_percent_min", 0, 90));
  options.cleaner.live_percent_min = static_cast<uint32_t>(live);
  UCCP_TRY(options.cleaner.log_bytes_min, config.integer_between("bus_log_bytes_min", 1, int64_t{1} << 50));
  UCCP_TRY(options.cleaner.bytes_per_second,
           config.integer_between("bus_rewrite_bytes_per_second", 1 << 10, int64_t{1} << 40));
  options.producers.idle_ms = std::max<int64_t>(config.duration_ms("bus_producer_idle"), 60'000);
  UCCP_TRY(options.transactions.events_max, config.integer_between("bus_transaction_events_max", 1, 1'000'000));
  UCCP_TRY(options.transactions.bytes_max,
           config.integer_between("bus_transaction_bytes_max", 1 << 10, int64_t{1} << 32));
  options.transactions.timeout_max_ms = std::max<int64_t>(config.duration_ms("bus_transaction_time_max"), 1'000);
  UCCP_TRY(options.transactions.open_max, config.integer_between("bus_transactions_open_max", 1, 1'000'000));
  return options;
}

// Proposes to the leader of the group, wherever it is: here at once, elsewhere as a call between the nodes.
class BusSide::Remote final : public machine::Proposer {
 public:
  Remote(node::Node& node, const Clock& clock, const call::HandlerTable& doors)
      : node_(node), clock_(clock), doors_(doors), method_(call::Contract::get().find(kPropose)) {}

  void propose(GroupId group, machine::Envelope envelope, Done done) override {
    const call::Handler* forward = doors_.find(method_);
    // A cluster of one has nobody to forward to.
    if (forward == nullptr || node_.leads(group)) return node_.propose(group, std::move(envelope), std::move(done));
    internal::v1::ProposeRequest request;
    request.set_group(group.value);
    request.set_request_id(envelope.dedup.request_id);
    request.set_envelope(machine::encode_envelope(envelope));
    auto call = std::make_shared<call::Call>();
    call->method = method_;
    call->principal.kind = call::Principal::Kind::kNode;
    call->principal.name = "system";
    call->traceparent = envelope.traceparent;
    call->request_id = envelope.dedup.request_id;
    call->started = clock_.boot();
    call->sink = std::make_shared<Answer>(std::move(done));
    (*forward)(call, request.SerializeAsString());
  }

 private:
  node::Node& node_;
  const Clock& clock_;
  const call::HandlerTable& doors_;
  const call::Method* method_;
};

BusSide::BusSide(events::EventsOptions options) : options_(options) {}

BusSide::~BusSide() = default;

machine::Proposer& BusSide::anywhere() { return *remote_; }

std::vector<GroupId> BusSide::group_ids() const {
  std::vector<GroupId> ids;
  for (uint32_t number = 0; number < options_.groups; ++number) ids.push_back(events::bus_group(number));
  return ids;
}

std::vector<node::GroupSpec> BusSide::groups() {
  std::vector<node::GroupSpec> specs;
  for (uint32_t number = 0; number < options_.groups; ++number) {
    specs.push_back(
        {.id = events::bus_group(number),
         .name = events::bus_group_name(number),
         .domains = {&bus_, &transactions_},
         .log_floor = [](const machine::GroupView& view, LogIndex from) { return events::log_floor(view, from); }});
  }
  return specs;
}

void BusSide::build(const BusSideEnvironment& environment, call::HandlerTable& handlers,
                    const call::HandlerTable& doors) {
  node::Node& node = environment.node;
  remote_ = std::make_unique<Remote>(node, environment.clock, doors);
  service_ = std::make_unique<events::EventsService>(
      options_, events::EventsEnvironment{.local = node,
                                          .anywhere = *remote_,
                                          .reader = node,
                                          .log = node,
                                          .watcher = node,
                                          .loop = environment.loop,
                                          .events = environment.events,
                                          .work = environment.reads,
                                          .clock = environment.clock,
                                          .metrics = environment.metrics,
                                          .page_tokens = environment.page_tokens,
                                          .leader = [&node](GroupId group) { return node.known_leader(group); },
                                          .feature_level = [&node] { return node.feature_level(); },
                                          .topic_quotas = tasks::topic_quotas});
  service_->add_handlers(handlers);
  handlers.add_parsed<internal::v1::ProposeRequest>(
      kPropose, [&node](const call::CallPtr& call, const internal::v1::ProposeRequest& request) {
        if (call->principal.kind != call::Principal::Kind::kNode) {
          return call->finish(Status(Code::kPermission, "NODES_ONLY", "only nodes of the cluster propose commands"));
        }
        auto envelope = machine::decode_envelope(request.envelope());
        if (!envelope) return call->finish(std::move(envelope.error()));
        node.propose(GroupId(request.group()), std::move(*envelope), [call](Result<machine::Applied> applied) {
          if (!applied) return call->finish(std::move(applied.error()));
          internal::v1::ProposeResponse response;
          response.set_index(applied->index.value);
          *response.mutable_response() = std::move(applied->response);
          call->reply(response.SerializeAsString());
        });
      });
}

}  // namespace uccp::server
