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

bool permits(const call::Principal&, std::string_view) { return true; }

}  // namespace

SimServices::SimServices(node::Node& node, Executor& timers, const Clock& clock, uint64_t seed,
                         MetricsRegistry& metrics)
    : clock_(clock),
      random_(seed),
      locks_({node, node, node, node, timers, clock, random_, metrics, page_tokens_, permits}),
      elections_({node, node, node, node, timers, clock, random_, metrics, page_tokens_, permits}) {
  locks_.add_handlers(handlers_);
  elections_.add_handlers(handlers_);
}

void SimServices::call(const ServiceCall& request, Reply reply) {
  const call::Handler* handler = handlers_.find(request.method);
  UCCP_CHECK(handler != nullptr, "the simulation calls what the services handle");
  auto call = std::make_shared<call::Call>();
  call->method = request.method;
  call->sink = std::make_shared<ReplySink>(std::move(reply));
  call->principal = {call::Principal::Kind::kUser, "t", request.principal, {}, {}, 0};
  call->name_space = "n";
  call->request_id = request.request_id;
  call->credentials.address = request.principal;
  call->deadline = clock_.boot().plus_ms(request.deadline_ms);
  (*handler)(call, request.request);
}

}  // namespace uccp::sim
