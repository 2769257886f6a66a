#include "call/forward.h"

#include <algorithm>
#include <mutex>

#include "call/error_json.h"
#include "call/wire.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::call {
namespace {

using internal::v1::ForwardHeader;
using internal::v1::ForwardRequest;
using internal::v1::ForwardResponse;

// Answers that a client has not taken yet are reported in steps of this size, and when all are taken.
constexpr uint64_t kTakenStepBytes = 64u << 10;

Status no_leader(GroupId group) {
  return Status(Code::kUnavailable, "NO_LEADER",
                "the group that has to serve this has no leader just now (group " + std::to_string(group.value) +
                    "); nothing was done, retry")
      .with_retry_after_ms(500);
}

ForwardHeader header_of(const Call& call, std::string request, BootTime now) {
  ForwardHeader header;
  header.set_method(call.method->full_name);
  header.set_tenant(call.principal.tenant);
  header.set_principal(call.principal.name);
  header.set_principal_kind(static_cast<uint32_t>(call.principal.kind));
  header.mutable_roles()->Assign(call.principal.roles.begin(), call.principal.roles.end());
  header.mutable_namespaces()->Assign(call.principal.namespaces.begin(), call.principal.namespaces.end());
  header.mutable_groups()->Assign(call.principal.groups.begin(), call.principal.groups.end());
  header.set_credential(static_cast<uint32_t>(call.principal.credential));
  header.set_credential_id(call.principal.credential_id);
  header.set_session(call.principal.session);
  header.set_expires_us(call.principal.expires_us);
  header.set_issued_us(call.principal.issued_us);
  header.set_credential_groups(static_cast<uint32_t>(call.principal.credential_groups));
  header.set_policy_revision(call.policy_revision);
  header.set_call_id(call.call_id);
  header.set_traceparent(call.traceparent);
  if (call.deadline) header.set_deadline_ms(std::max<int64_t>(1, call.deadline->ms_since(now)));
  header.set_consistency(call.consistency);
  header.set_namespace_(call.name_space);
  header.set_resource(call.resource);
  header.set_request_id(call.request_id);
  header.set_door(static_cast<uint32_t>(call.door));
  header.set_client_address(call.credentials.address);
  header.set_request(std::move(request));
  return header;
}

// The outcome as to_rpc_status() wrote it; empty: success.
Status outcome_of(std::string_view bytes) {
  if (bytes.empty()) return Status::ok();
  int code = 2;
  std::string message;
  WireReader reader(bytes);
  for (WireField field; reader.next(field);) {
    if (field.number == 1 && field.type == WireType::kVarint) code = static_cast<int>(field.value);
    if (field.number == 2 && field.type == WireType::kBytes) message = field.bytes;
  }
  return from_rpc_status(bytes, code, message);
}

// A copy of what handlers read, with another sink.
CallPtr copy_of(const Call& call, std::shared_ptr<Sink> sink) {
  auto copy = std::make_shared<Call>();
  copy->door = call.door;
  copy->method = call.method;
  copy->call_id = call.call_id;
  copy->credentials.address = call.credentials.address;
  copy->traceparent = call.traceparent;
  copy->deadline = call.deadline;
  copy->consistency = call.consistency;
  copy->default_namespace = call.default_namespace;
  copy->request_id = call.request_id;
  copy->principal = call.principal;
  copy->read_level = call.read_level;
  copy->name_space = call.name_space;
  copy->resource = call.resource;
  copy->started = call.started;
  copy->hash_key = call.hash_key;
  copy->sink = std::move(sink);
  return copy;
}

bool repeatable(const Call& call) {
  return !call.method->mutating || call.method->naturally_idempotent || !call.request_id.empty();
}

// True if the call did nothing, or doing it again changes nothing more.
bool may_repeat(const Call& call, const Status& status) {
  switch (status.code()) {
    case Code::kNotLeader:
    case Code::kUnavailable: return true;
    case Code::kOutcomeUnknown: return repeatable(call);
    default: return false;
  }
}

// What a broken connection between the nodes means for this call.
Status lost(const Call& call, Status status) {
  // A call that our own client did not cancel was cancelled by the leader, which is going away.
  const bool unknown = status.code() == Code::kOutcomeUnknown || status.code() == Code::kCancelled;
  if (unknown && !call.method->mutating) {
    return Status(Code::kUnavailable, "LEADER_LOST", "the connection to the node that serves this was lost; retry");
  }
  if (unknown) {
    return Status(Code::kOutcomeUnknown, "LEADER_LOST",
                  "the connection to the leader was lost before it answered; the change may have been made: look, or "
                  "repeat it with the same request id");
  }
  return status;
}

}  // namespace

struct Forwarder::Shared {
  const HandlerTable& local;
  ForwardPort& port;
  Executor& timers;
  const Clock& clock;
  const ForwarderOptions options;
  Counter& forwarded;
  Counter& repeated;

  int64_t pause_ms(int tries) const {
    const int64_t grown = options.pause_ms_min << std::min(tries, 4);
    const int64_t jitter = clock.boot().us % std::max<int64_t>(1, options.pause_ms_min);
    return std::min(grown + jitter, options.pause_ms_max);
  }
  // True if there is time for another try after `pause`.
  bool has_time(const Call& call, BootTime began, int64_t pause) const {
    const BootTime next = clock.boot().plus_ms(pause);
    return next.ms_since(began) < options.patience_ms && (!call.deadline || next < *call.deadline);
  }
};

// --- one try of a unary call ----------------------------------------------------------------------------------------

struct Answer {
  Status status;
  std::string message;
  std::vector<std::pair<std::string, std::string>> headers;
};

// Runs the call here or on another node and answers once. `cancel` from any thread.
class Forwarder::Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  using Done = std::move_only_function<void(Answer)>;
  Attempt(const CallPtr& outer, Done done) : outer_(outer), done_(std::move(done)) {}

  void run_here(const Shared& shared, const Call& call, std::string request) {
    auto inner = copy_of(call, std::make_shared<Collector>(shared_from_this()));
    {
      std::lock_guard lock(mutex_);
      inner_ = inner;
    }
    (*shared.local.find(call.method))(inner, std::move(request));
  }

  void run_there(const Shared& shared, const CallPtr& call, GroupId group, NodeId to, std::string request) {
    ForwardRequest first;
    *first.mutable_header() = header_of(*call, std::move(request), shared.clock.boot());
    auto stream = shared.port.open(
        to,
        {.on_message = [self = shared_from_this()](std::string bytes) { self->take(std::move(bytes)); },
         .on_done = [self = shared_from_this(), call](Status status) { self->stream_done(*call, std::move(status)); }});
    if (stream == nullptr) return end({.status = no_leader(group)});
    {
      std::lock_guard lock(mutex_);
      // One that has ended already is not kept: its callbacks hold this object.
      if (done_) stream_ = stream;
    }
    stream->send(first.SerializeAsString());
    stream->half_close();
  }

  void cancel() {
    CallPtr inner;
    std::shared_ptr<ForwardStream> stream;
    {
      std::lock_guard lock(mutex_);
      inner = std::exchange(inner_, nullptr);
      stream = std::exchange(stream_, nullptr);
    }
    if (stream) stream->cancel();
    if (inner) {
      inner->deliver_cancel();
      inner->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
    }
  }

 private:
  // The sink of a call that runs here.
  class Collector final : public Sink {
   public:
    explicit Collector(std::shared_ptr<Attempt> attempt) : attempt_(std::move(attempt)) {}
    void send(std::string message) override { attempt_->answer_.message = std::move(message); }
    void finish(Status status) override {
      CallPtr inner;
      {
        std::lock_guard lock(attempt_->mutex_);
        inner = std::exchange(attempt_->inner_, nullptr);
      }
      if (inner) attempt_->answer_.headers = inner->headers();
      attempt_->answer_.status = std::move(status);
      attempt_->end(std::move(attempt_->answer_));
    }
    size_t queued_bytes() const override { return 0; }
    void waiting() override { attempt_->park(); }

   private:
    std::shared_ptr<Attempt> attempt_;
  };

  void take(std::string bytes) {
    ForwardResponse response;
    if (!response.ParseFromString(bytes)) return;
    switch (response.body_case()) {
      case ForwardResponse::kMetadata:
        if (response.metadata().name() == kWaitingMark) return park();
        answer_.headers.emplace_back(response.metadata().name(), response.metadata().value());
        break;
      case ForwardResponse::kMessage: answer_.message = std::move(*response.mutable_message()); break;
      case ForwardResponse::kOutcome:
        has_outcome_ = true;
        answer_.status = outcome_of(response.outcome());
        break;
      default: break;
    }
  }

  // A call that waits on the serving node does no work here either.
  void park() {
    if (const CallPtr outer = outer_.lock()) outer->begin_waiting();
  }

  void stream_done(const Call& call, Status status) {
    {
      std::lock_guard lock(mutex_);
      stream_ = nullptr;
    }
    if (!has_outcome_) {
      answer_.status = status.is_ok()
                           ? Status(Code::kInternal, "FORWARD_NO_OUTCOME", "the leader ended without an outcome")
                           : lost(call, std::move(status));
    }
    end(std::move(answer_));
  }

  void end(Answer answer) {
    Done done;
    {
      std::lock_guard lock(mutex_);
      done = std::exchange(done_, {});
    }
    if (done) done(std::move(answer));
  }

  const std::weak_ptr<Call> outer_;
  std::mutex mutex_;
  Done done_;
  CallPtr inner_;
  std::shared_ptr<ForwardStream> stream_;
  Answer answer_;
  bool has_outcome_ = false;
};

class Forwarder::UnaryForward : public std::enable_shared_from_this<UnaryForward> {
 public:
  UnaryForward(std::shared_ptr<Shared> shared, CallPtr call, std::string request, GroupId group)
      : shared_(std::move(shared)),
        call_(std::move(call)),
        request_(std::move(request)),
        group_(group),
        began_(shared_->clock.boot()) {}

  void start() {
    call_->on_cancel([self = shared_from_this()] { self->cancel(); });
    attempt();
  }

 private:
  void attempt() {
    if (call_->finished()) return;
    const bool here = shared_->port.leads(group_);
    const NodeId leader = here ? NodeId() : shared_->port.leader(group_);
    if (!here && !leader) return take({.status = no_leader(group_)});
    auto attempt =
        std::make_shared<Attempt>(call_, [self = shared_from_this()](Answer answer) { self->take(std::move(answer)); });
    {
      std::lock_guard lock(mutex_);
      if (cancelled_) return;
      attempt_ = attempt;
    }
    if (here) return attempt->run_here(*shared_, *call_, request_);
    shared_->forwarded.add();
    attempt->run_there(*shared_, call_, group_, leader, request_);
  }

  void take(Answer answer) {
    {
      std::lock_guard lock(mutex_);
      attempt_ = nullptr;
    }
    if (call_->finished()) return;
    if (answer.status.is_ok()) {
      for (auto& [name, value] : answer.headers) call_->set_header(std::move(name), std::move(value));
      return call_->reply(std::move(answer.message));
    }
    // A change whose fate is unknown is not answered later as if nothing had been done.
    if (answer.status.code() == Code::kOutcomeUnknown) unknown_ = answer.status;
    const int64_t pause = shared_->pause_ms(tries_);
    if (!may_repeat(*call_, answer.status)) return call_->finish(std::move(answer.status));
    if (!shared_->has_time(*call_, began_, pause)) return call_->finish(unknown_.value_or(std::move(answer.status)));
    ++tries_;
    shared_->repeated.add();
    shared_->timers.post_after(pause, [self = shared_from_this()] { self->attempt(); });
  }

  void cancel() {
    std::shared_ptr<Attempt> attempt;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      attempt = std::exchange(attempt_, nullptr);
    }
    if (attempt) attempt->cancel();
    call_->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
  }

  const std::shared_ptr<Shared> shared_;
  const CallPtr call_;
  const std::string request_;
  const GroupId group_;
  const BootTime began_;
  int tries_ = 0;
  std::optional<Status> unknown_;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::shared_ptr<Attempt> attempt_;
};

// --- streams --------------------------------------------------------------------------------------------------------

class Forwarder::StreamForward : public std::enable_shared_from_this<StreamForward> {
 public:
  StreamForward(std::shared_ptr<Shared> shared, CallPtr call, std::string request, GroupId group)
      : shared_(std::move(shared)),
        call_(std::move(call)),
        request_(std::move(request)),
        group_(group),
        began_(shared_->clock.boot()) {}

  void start() {
    if (call_->finished()) return;
    if (shared_->port.leads(group_)) return (*shared_->local.find(call_->method))(call_, std::move(request_));
    const NodeId leader = shared_->port.leader(group_);
    if (!leader) return retry(no_leader(group_));
    shared_->forwarded.add();
    call_->on_cancel([self = shared_from_this()] { self->cancel(); });
    call_->on_drain([self = shared_from_this()] { self->report_taken(); });
    {
      std::lock_guard lock(mutex_);
      ended_ = false;
      outcome_.reset();
    }
    auto stream = shared_->port.open(
        leader, {.on_message = [self = shared_from_this()](std::string bytes) { self->take(std::move(bytes)); },
                 .on_done = [self = shared_from_this()](Status status) { self->done(std::move(status)); }});
    if (stream == nullptr) return retry(no_leader(group_));
    {
      std::lock_guard lock(mutex_);
      // One that has ended already is not kept: its callbacks hold this object.
      if (!ended_) stream_ = stream;
    }
    ForwardRequest first;
    *first.mutable_header() = header_of(*call_, request_, shared_->clock.boot());
    stream->send(first.SerializeAsString());
    if (!call_->method->client_streaming) return;
    pumping_ = true;
    call_->on_message([self = shared_from_this()](std::string message) { self->pass_on(std::move(message)); });
    call_->on_half_close([self = shared_from_this()] {
      if (auto stream = self->stream()) {
        ForwardRequest request;
        request.set_half_close(true);
        stream->send(request.SerializeAsString());
      }
    });
  }

 private:
  std::shared_ptr<ForwardStream> stream() {
    std::lock_guard lock(mutex_);
    return stream_;
  }

  void retry(Status status) {
    if (call_->finished()) return;
    const int64_t pause = shared_->pause_ms(tries_++);
    // What a client stream has sent already is gone.
    if (answered_ || pumping_ || !may_repeat(*call_, status) || !shared_->has_time(*call_, began_, pause)) {
      return call_->finish(std::move(status));
    }
    shared_->repeated.add();
    shared_->timers.post_after(pause, [self = shared_from_this()] { self->start(); });
  }

  void pass_on(std::string message) {
    auto stream = this->stream();
    if (stream == nullptr) return;
    ForwardRequest request;
    *request.mutable_message() = std::move(message);
    stream->send(request.SerializeAsString());
  }

  void take(std::string bytes) {
    ForwardResponse response;
    if (!response.ParseFromString(bytes)) return;
    switch (response.body_case()) {
      case ForwardResponse::kMetadata:
        call_->set_header(response.metadata().name(), response.metadata().value());
        break;
      case ForwardResponse::kMessage: {
        answered_ = true;
        {
          std::lock_guard lock(mutex_);
          received_ += response.message().size();
        }
        call_->send(std::move(*response.mutable_message()));
        report_taken();
        break;
      }
      case ForwardResponse::kOutcome: {
        Status outcome = outcome_of(response.outcome());
        std::lock_guard lock(mutex_);
        outcome_ = std::move(outcome);
        break;
      }
      default: break;
    }
  }

  // Tells the serving node what the client has taken, so that it sends no faster than that.
  void report_taken() {
    std::shared_ptr<ForwardStream> stream;
    uint64_t step = 0;
    {
      std::lock_guard lock(mutex_);
      const uint64_t queued = call_->sink->queued_bytes();
      const uint64_t taken = received_ > queued ? received_ - queued : 0;
      if (taken <= reported_ || (taken - reported_ < kTakenStepBytes && queued > 0)) return;
      step = taken - reported_;
      reported_ = taken;
      stream = stream_;
    }
    if (stream == nullptr) return;
    ForwardRequest request;
    request.set_taken_bytes(step);
    stream->send(request.SerializeAsString());
  }

  void done(Status status) {
    std::optional<Status> outcome;
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
      stream_ = nullptr;
      outcome = std::exchange(outcome_, std::nullopt);
    }
    if (!outcome) {
      outcome = status.is_ok() ? Status(Code::kUnavailable, "LEADER_LOST", "the node that serves this ended the stream")
                               : lost(*call_, std::move(status));
    }
    if (outcome->is_ok()) return call_->finish(Status::ok());
    retry(std::move(*outcome));
  }

  void cancel() {
    if (auto stream = this->stream()) stream->cancel();
    call_->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
  }

  const std::shared_ptr<Shared> shared_;
  const CallPtr call_;
  std::string request_;
  const GroupId group_;
  const BootTime began_;
  int tries_ = 0;
  bool answered_ = false;
  bool pumping_ = false;
  std::mutex mutex_;
  bool ended_ = false;  // the stream that was opened last
  std::shared_ptr<ForwardStream> stream_;
  std::optional<Status> outcome_;
  uint64_t received_ = 0;
  uint64_t reported_ = 0;
};

Forwarder::Forwarder(const HandlerTable& local, ForwardPort& port, Executor& timers, const Clock& clock,
                     MetricsRegistry& metrics, ForwarderOptions options)
    : shared_(std::make_shared<Shared>(Shared{
          local, port, timers, clock, options,
          metrics.counter("uccp_calls_forwarded_total", "Calls handed to the leader on another node"),
          metrics.counter("uccp_calls_repeated_total", "Calls tried again because no leader had served them")})) {}

void Forwarder::add_handlers(HandlerTable& doors) {
  for (const Method& method : Contract::get().methods()) {
    const Handler* own = shared_->local.find(&method);
    if (own == nullptr || doors.find(&method) != nullptr) continue;
    const Placement placement = placement_of(method);
    if (method.full_name == kProposeMethod) {
      doors.add(method.full_name, [shared = shared_](const CallPtr& call, std::string request) {
        const GroupId group = placement_of(*call->method, request).group;
        std::make_shared<UnaryForward>(shared, call, std::move(request), group)->start();
      });
    } else if (method.full_name == kSubscribeMethod) {
      doors.add(method.full_name, [shared = shared_, own](const CallPtr& call, std::string request) {
        const Placement at = placement_of(*call->method, request);
        if (!at.leader_only) return (*own)(call, std::move(request));
        std::make_shared<StreamForward>(shared, call, std::move(request), at.group)->start();
      });
    } else if (!placement.leader_only) {
      doors.add(method.full_name, *own);
    } else if (method.client_streaming || method.server_streaming) {
      doors.add(method.full_name,
                [shared = shared_, group = placement.group](const CallPtr& call, std::string request) {
                  std::make_shared<StreamForward>(shared, call, std::move(request), group)->start();
                });
    } else {
      doors.add(method.full_name,
                [shared = shared_, group = placement.group](const CallPtr& call, std::string request) {
                  std::make_shared<UnaryForward>(shared, call, std::move(request), group)->start();
                });
    }
  }
}

}  // namespace uccp::call
