#include "doors/etcd/etcd_ask.h"

#include <atomic>

#include "call/contract.h"

namespace uccp::doors {
namespace {

// Holds the one answer until the call ends.
class OneAnswer final : public call::Sink {
 public:
  // `outer`: null for a call that outlives it.
  OneAnswer(call::CallPtr outer, Answered done) : outer_(std::move(outer)), done_(std::move(done)) {}
  void send(std::string message) override { answer_ = std::move(message); }
  void finish(Status status) override {
    if (outer_ != nullptr && outer_->finished()) return;
    status.is_ok() ? done_(std::move(answer_)) : done_(std::unexpected(std::move(status)));
  }
  size_t queued_bytes() const override { return 0; }

 private:
  const call::CallPtr outer_;
  Answered done_;
  std::string answer_;
};

}  // namespace

call::CallPtr inner_call(const call::CallPtr& outer, std::string_view method) {
  auto inner = std::make_shared<call::Call>();
  inner->door = call::Call::Door::kEtcd;
  inner->method = call::Contract::get().find(method);
  inner->credentials = outer->credentials;
  inner->call_id = outer->call_id;
  inner->traceparent = outer->traceparent;
  inner->deadline = outer->deadline;
  inner->default_namespace = outer->default_namespace;
  return inner;
}

void ask(const EtcdContext& context, const call::CallPtr& outer, const AskOptions& options, std::string request,
         Answered done) {
  const call::CallPtr inner = inner_call(outer, options.method);
  inner->consistency = options.consistency;
  inner->sink = std::make_shared<OneAnswer>(options.outlives ? nullptr : outer, std::move(done));
  if (!options.outlives)
    outer->on_cancel([weak = std::weak_ptr<call::Call>(inner)] {
      if (const call::CallPtr open = weak.lock()) {
        open->deliver_cancel();
        open->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
      }
    });
  context.pipeline.dispatch(inner, std::move(request), options.method);
}

}  // namespace uccp::doors
