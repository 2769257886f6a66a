// The serving side of forwarding: calls that another node vouches for. forward.h says what both sides promise.
#include <algorithm>
#include <atomic>

#include "call/error_json.h"
#include "call/forward.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::call {
namespace {

using internal::v1::ForwardHeader;
using internal::v1::ForwardRequest;
using internal::v1::ForwardResponse;

Result<machine::ReadLevel> read_level_of(const Method& method, const std::string& text) {
  if (!text.empty()) return machine::parse_read_level(text);
  return method.read_level == DefaultRead::kBounded ? machine::ReadLevel::bounded(method.read_bound_ms)
                                                    : machine::ReadLevel::linearizable();
}

Principal principal_of(const ForwardHeader& header) {
  Principal principal;
  principal.kind = static_cast<Principal::Kind>(std::min<uint32_t>(header.principal_kind(), 4));
  principal.tenant = header.tenant();
  principal.name = header.principal();
  principal.roles.assign(header.roles().begin(), header.roles().end());
  principal.namespaces.assign(header.namespaces().begin(), header.namespaces().end());
  principal.groups.assign(header.groups().begin(), header.groups().end());
  principal.credential_groups = header.credential_groups();
  principal.credential = static_cast<Principal::Credential>(std::min<uint32_t>(header.credential(), 4));
  principal.credential_id = header.credential_id();
  principal.session = header.session();
  principal.expires_us = header.expires_us();
  principal.issued_us = header.issued_us();
  return principal;
}

// Answers travel back on the outer call; what the client has not taken counts as queued.
class ForwardSink final : public Sink {
 public:
  explicit ForwardSink(CallPtr outer) : outer_(std::move(outer)) {}

  void send_headers(const Call& inner) {
    for (const auto& [name, value] : inner.headers()) {
      ForwardResponse response;
      response.mutable_metadata()->set_name(name);
      response.mutable_metadata()->set_value(value);
      outer_->send(response.SerializeAsString());
    }
  }
  void attach(const CallPtr& inner) { inner_ = inner; }

  void send(std::string message) override {
    headers_once();
    outstanding_.fetch_add(message.size());
    ForwardResponse response;
    *response.mutable_message() = std::move(message);
    outer_->send(response.SerializeAsString());
  }
  void finish(Status status) override {
    headers_once();
    ForwardResponse response;
    response.set_outcome(status.is_ok() ? std::string() : to_rpc_status(status));
    outer_->send(response.SerializeAsString());
    outer_->finish(Status::ok());
  }
  size_t queued_bytes() const override { return outstanding_.load(); }
  void waiting() override {
    if (waiting_sent_.exchange(true)) return;
    ForwardResponse response;
    response.mutable_metadata()->set_name(std::string(kWaitingMark));
    outer_->send(response.SerializeAsString());
  }
  void taken(uint64_t bytes) { outstanding_.fetch_sub(std::min<size_t>(outstanding_.load(), bytes)); }

 private:
  void headers_once() {
    if (headers_sent_.exchange(true)) return;
    if (const CallPtr inner = inner_.lock()) send_headers(*inner);
  }

  const CallPtr outer_;
  std::weak_ptr<Call> inner_;
  std::atomic<size_t> outstanding_{0};
  std::atomic<bool> headers_sent_{false};
  std::atomic<bool> waiting_sent_{false};
};

}  // namespace

class ForwardService::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(const ForwardService& service, CallPtr outer) : service_(service), outer_(std::move(outer)) {}

  void take(std::string bytes) {
    ForwardRequest request;
    if (!request.ParseFromString(bytes))
      return refuse(Status(Code::kInvalid, "WIRE_INVALID", "malformed ForwardRequest"));
    switch (request.body_case()) {
      case ForwardRequest::kHeader: return begin(std::move(*request.mutable_header()));
      case ForwardRequest::kMessage:
        if (const CallPtr inner = this->inner()) inner->deliver_message(std::move(*request.mutable_message()));
        return;
      case ForwardRequest::kTakenBytes:
        if (const CallPtr inner = this->inner()) {
          sink_->taken(request.taken_bytes());
          inner->deliver_drain();
        }
        return;
      case ForwardRequest::kHalfClose:
        if (const CallPtr inner = this->inner()) inner->deliver_half_close();
        return;
      default: return;
    }
  }

  void cancel() {
    const CallPtr inner = this->inner();
    if (!inner) return;
    inner->deliver_cancel();
    inner->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
  }

 private:
  // Messages come one at a time, a cancellation beside them.
  CallPtr inner() {
    std::lock_guard lock(mutex_);
    return inner_;
  }

  void refuse(Status status) {
    if (inner()) return;
    ForwardResponse response;
    response.set_outcome(to_rpc_status(status));
    outer_->send(response.SerializeAsString());
    outer_->finish(Status::ok());
  }

  void begin(ForwardHeader header) {
    if (inner()) return;
    const Method* method = Contract::get().find(header.method());
    const Handler* handler = method == nullptr ? nullptr : service_.local_.find(method);
    if (handler == nullptr) {
      return refuse(
          Status(Code::kUnimplemented, "METHOD_UNIMPLEMENTED", header.method() + " is not built on this node"));
    }
    const Placement placement = placement_of(*method, header.request());
    if (placement.leader_only && !service_.port_.leads(placement.group)) {
      const NodeId leader = service_.port_.leader(placement.group);
      Status status(Code::kNotLeader, "NOT_LEADER",
                    "this node does not lead the group that serves " + method->full_name);
      return refuse(leader ? std::move(status).with_leader_hint("n" + std::to_string(leader.value))
                           : std::move(status));
    }
    auto level = read_level_of(*method, header.consistency());
    if (!level) return refuse(level.error());
    sink_ = std::make_shared<ForwardSink>(outer_);
    const CallPtr inner = call_of(header, *method);
    inner->read_level = std::move(*level);
    if (Status status = service_.authorize_again_(*inner, header.request()); !status.is_ok()) {
      return refuse(std::move(status));
    }
    sink_->attach(inner);
    {
      std::lock_guard lock(mutex_);
      inner_ = inner;
    }
    (*handler)(inner, std::move(*header.mutable_request()));
  }

  CallPtr call_of(const ForwardHeader& header, const Method& method) const {
    auto inner = std::make_shared<Call>();
    inner->door =
        static_cast<Call::Door>(std::min<uint32_t>(header.door(), static_cast<uint32_t>(Call::Door::kInternal)));
    inner->method = &method;
    inner->credentials.address = header.client_address();
    inner->call_id = header.call_id();
    inner->traceparent = header.traceparent();
    inner->started = service_.clock_.boot();
    if (header.deadline_ms() > 0) inner->deadline = inner->started.plus_ms(header.deadline_ms());
    inner->consistency = header.consistency();
    inner->request_id = header.request_id();
    inner->policy_revision = header.policy_revision();
    inner->principal = principal_of(header);
    inner->name_space = header.namespace_();
    inner->resource = header.resource();
    inner->hash_key = outer_->hash_key;
    inner->sink = sink_;
    return inner;
  }

  const ForwardService& service_;
  const CallPtr outer_;
  std::shared_ptr<ForwardSink> sink_;
  std::mutex mutex_;
  CallPtr inner_;
};

void ForwardService::add_handlers(HandlerTable& handlers) {
  handlers.add("uccp.internal.v1.NodeLink/Forward", [this](const CallPtr& call, std::string) {
    if (call->principal.kind != Principal::Kind::kNode) {
      return call->finish(Status(Code::kPermission, "NODES_ONLY", "only nodes of the cluster forward calls"));
    }
    auto session = std::make_shared<Session>(*this, call);
    call->on_cancel([session] { session->cancel(); });
    call->on_message([session](std::string bytes) { session->take(std::move(bytes)); });
  });
}

}  // namespace uccp::call
