#include "call/pipeline/pipeline.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "call/dry_run.h"
#include "call/validate.h"

namespace uccp::call {
namespace {

constexpr std::string_view kStageNames[kStageCount] = {"limits", "trace",     "method", "authenticate", "rate",
                                                       "decode", "authorize", "quota",  "handler",      "audit"};
// Cached credentials are looked at again after this time even if nothing was revoked.
constexpr int64_t kCredentialsCachedMs = 60'000;

std::string_view door_name(Call::Door door) {
  switch (door) {
    case Call::Door::kGrpc: return "grpc";
    case Call::Door::kRest: return "http";
    case Call::Door::kEtcd: return "etcd";
    case Call::Door::kInternal: break;
  }
  return "internal";
}

bool is_stream(const Call& call) {
  return call.method != nullptr && (call.method->client_streaming || call.method->server_streaming);
}

bool is_call_id(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127 && c != '"' && c != '\\'; });
}

// "00-<32 hex>-<16 hex>-<2 hex>" of W3C trace context.
bool is_traceparent(std::string_view text) {
  return text.size() == 55 && text[2] == '-' && text[35] == '-' && text[52] == '-' &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-'; });
}

}  // namespace

std::string_view stage_name(Stage stage) { return kStageNames[static_cast<size_t>(stage)]; }

constexpr size_t kDoorCount = static_cast<size_t>(Call::Door::kInternal) + 1;

struct Pipeline::MethodMetrics {
  // By door, then by code; created when first needed.
  std::atomic<Counter*> requests[kDoorCount][kCodeCount] = {};
  std::atomic<Histogram*> seconds[kDoorCount] = {};
};

struct Pipeline::CachedPrincipal {
  Principal principal;
  std::string secret;  // the whole credential: a hash collision must not change who calls
  uint64_t revision;
  BootTime until;
  std::shared_ptr<TenantLoad> load;  // of its tenant; null for those who are nobody's users
};

// Where a unary call is counted: at work, or parked. A handler may park it while another thread ends it.
class Pipeline::Place {
 public:
  explicit Place(Pipeline& pipeline) : pipeline_(pipeline) { pipeline_.working_.fetch_add(1); }

  // It is known whose it is. Before the handler has the call.
  void count_in(std::shared_ptr<TenantLoad> load) {
    load_ = std::move(load);
    load_->working.fetch_add(1);
  }

  Status park() {
    if (pipeline_.waiting_.load() >= static_cast<int64_t>(pipeline_.calls_waiting_max_.load())) {
      return Status(Code::kExhausted, "WAITS_EXHAUSTED",
                    std::to_string(pipeline_.calls_waiting_max_.load()) +
                        " calls wait on this node already; ask without waiting, or another node")
          .with_retry_after_ms(1000);
    }
    auto at_work = State::kAtWork;
    if (!state_.compare_exchange_strong(at_work, State::kParked)) return Status::ok();
    leave_work();
    pipeline_.waiting_gauge_.set(static_cast<double>(pipeline_.waiting_.fetch_add(1) + 1));
    return Status::ok();
  }
  // True if it was at work to the end.
  bool leave() {
    const bool at_work = state_.exchange(State::kGone) == State::kAtWork;
    if (at_work) leave_work();
    else pipeline_.waiting_gauge_.set(static_cast<double>(pipeline_.waiting_.fetch_sub(1) - 1));
    return at_work;
  }

 private:
  enum class State : uint8_t { kAtWork, kParked, kGone };

  void leave_work() {
    pipeline_.working_.fetch_sub(1);
    if (load_ != nullptr) load_->working.fetch_sub(1);
  }

  Pipeline& pipeline_;
  std::shared_ptr<TenantLoad> load_;
  std::atomic<State> state_{State::kAtWork};
};

Pipeline::Pipeline(const HandlerTable& handlers, Authenticator& authenticator, const Clock& clock, Random& random,
                   MetricsRegistry& metrics, PipelineOptions options)
    : handlers_(handlers),
      authenticator_(authenticator),
      clock_(clock),
      random_(random),
      metrics_(metrics),
      options_(std::move(options)),
      waiting_gauge_(metrics.gauge("uccp_calls_waiting", "Unary calls that wait for something and do no work")),
      calls_in_flight_max_(options_.calls_in_flight_max),
      calls_waiting_max_(options_.calls_waiting_max),
      tenant_percent_(options_.calls_in_flight_tenant_percent),
      limiter_(options_.rates) {
  // One more for calls of methods that do not exist.
  for (size_t i = 0; i <= Contract::get().methods().size(); ++i) {
    method_metrics_.push_back(std::make_unique<MethodMetrics>());
  }
}

Pipeline::~Pipeline() = default;

void Pipeline::set_limits(const Limits& limits) {
  calls_in_flight_max_.store(limits.calls_in_flight_max);
  calls_waiting_max_.store(limits.calls_waiting_max);
  tenant_percent_.store(limits.calls_in_flight_tenant_percent);
  no_room_.store(nullptr);
  tenant_no_room_.store(nullptr);
}

void Pipeline::set_rates(std::vector<RateRule> rates) { limiter_.replace(std::move(rates)); }

void Pipeline::close() { closed_.store(true); }

void Pipeline::dispatch(const CallPtr& call, std::string request, std::string_view method_name) {
  call->started = clock_.boot();
  in_flight_.fetch_add(1);
  std::shared_ptr<Place> place;
  if (!is_stream(*call)) {
    place = std::make_shared<Place>(*this);
    call->on_wait([place] { return place->park(); });
  }
  call->on_finish([this, place, raw = call.get()](Status& status) {
    if (place == nullptr) {
      if (Status ended = streams_.remove(raw); !ended.is_ok()) status = std::move(ended);
    }
    account(*raw, status);
    in_flight_.fetch_sub(1);
    if (place != nullptr && place->leave() && status.is_ok()) note_duration(*raw);
  });
  if (Status status = run_stages(call, place.get(), request, method_name); !status.is_ok())
    return call->finish(std::move(status));
  if (place == nullptr) streams_.add(call, request);
  enter(*call, Stage::kHandler);
  if (call->dry_run && !checks_dry_runs(*call->method)) {
    if (const Handler* dry = handlers_.find_dry(call->method)) return (*dry)(call, std::move(request));
    return call->reply(dry_run_answer(*call->method, request));
  }
  (*handlers_.find(call->method))(call, std::move(request));
}

Status Pipeline::run_stages(const CallPtr& call, Place* place, std::string& request, std::string_view method_name) {
  enter(*call, Stage::kTrace);
  trace(call);
  if (options_.hash_key) call->hash_key = &*options_.hash_key;
  enter(*call, Stage::kLimits);
  UCCP_RETURN_IF_ERROR(limit(*call, request));
  enter(*call, Stage::kMethod);
  UCCP_RETURN_IF_ERROR(match(*call, method_name));
  enter(*call, Stage::kAuthenticate);
  UCCP_RETURN_IF_ERROR(authenticate(*call));
  UCCP_RETURN_IF_ERROR(check_current(*call));
  enter(*call, Stage::kRate);
  UCCP_RETURN_IF_ERROR(limit_tenant(*call, place));
  UCCP_RETURN_IF_ERROR(limit_rate(*call));
  enter(*call, Stage::kDecode);
  UCCP_RETURN_IF_ERROR(decode(*call, request));
  enter(*call, Stage::kAuthorize);
  UCCP_RETURN_IF_ERROR(authorize(*call, request));
  // Only who may call a method learns that it is not built.
  if (handlers_.find(call->method) == nullptr) {
    return Status(Code::kUnimplemented, "METHOD_UNIMPLEMENTED",
                  call->method->full_name + " is part of the contract and not built yet");
  }
  enter(*call, Stage::kQuota);
  return limit_quota(*call);
}

void Pipeline::trace(const CallPtr& call) {
  uint64_t words[2] = {};
  if (!is_call_id(call->call_id) || !is_traceparent(call->traceparent)) {
    std::lock_guard lock(random_mutex_);
    for (uint64_t& word : words) word = random_.next();
  }
  if (!is_call_id(call->call_id)) call->call_id = to_hex(ByteWriter().u64(words[0]).u64(words[1]).data());
  if (!is_traceparent(call->traceparent)) {
    call->traceparent = "00-" + to_hex(ByteWriter().u64(words[1]).u64(words[0]).data()) + "-" +
                        to_hex(ByteWriter().u64(words[0] ^ words[1]).data()) + "-00";
  }
}

Status Pipeline::limit(Call& call, const std::string& request) {
  if (closed_.load()) {
    return Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down; use another one or retry")
        .with_retry_after_ms(1000);
  }
  if (!is_stream(call)) UCCP_RETURN_IF_ERROR(limit_work(call));
  if (request.size() > limits::kMessageBytesMax) {
    return Status(Code::kInvalid, "REQUEST_TOO_LARGE",
                  "the request has " + std::to_string(request.size()) + " bytes; at most " +
                      std::to_string(limits::kMessageBytesMax) + " are taken");
  }
  if (!is_stream(call)) {
    const BootTime latest = call.started.plus_ms(limits::kDeadlineMaxMs);
    if (!call.deadline) call.deadline = call.started.plus_ms(limits::kDeadlineDefaultMs);
    call.deadline = std::min(*call.deadline, latest);
  }
  if (call.deadline && *call.deadline <= call.started) {
    return Status(Code::kDeadline, "DEADLINE_EXCEEDED", "the deadline had passed before the call was started");
  }
  return Status::ok();
}

// Agents and administration keep room when users' calls fill the node. While several tenants call, none has all of it,
// and one that has little at work gets in although others have filled the node: their own part shrinks from then on.
// As long as it is not known who calls, only what nobody may exceed counts.
Pipeline::Room Pipeline::room_for(const Method* method, const TenantLoad* load, size_t working) const {
  const size_t max = calls_in_flight_max_.load(std::memory_order_relaxed);
  const bool reserved = method != nullptr && method->lane != Lane::kUser;
  if (reserved || load == nullptr) return working <= max * 2 ? Room::kYes : Room::kFull;
  if (!loads_.side_by_side(clock_.boot())) return working <= max ? Room::kYes : Room::kFull;
  const size_t most = std::max<size_t>(1, max * static_cast<size_t>(tenant_percent_.load()) / 100);
  const auto own = static_cast<size_t>(std::max<int64_t>(0, load->working.load(std::memory_order_relaxed)));
  if (own > most) return Room::kTenantFull;
  const bool gets_in = working <= max || (own <= std::max<size_t>(1, max - most) && working <= max * 2);
  return gets_in ? Room::kYes : Room::kFull;
}

// The longer calls take, the later it makes sense to come again.
uint32_t Pipeline::retry_ms() const {
  constexpr int64_t kStepMs = 100;
  const int64_t wanted_ms = 2 * change_us_.load(std::memory_order_relaxed) / 1000;
  return static_cast<uint32_t>(std::clamp<int64_t>((wanted_ms + kStepMs - 1) / kStepMs * kStepMs, 200, 5'000));
}

Status Pipeline::no_room(Room room, uint32_t retry) const {
  const std::string max = std::to_string(calls_in_flight_max_.load());
  if (room != Room::kTenantFull) {
    return Status(Code::kExhausted, "CALLS_IN_FLIGHT", "this node works on " + max + " calls; retry later")
        .with_retry_after_ms(retry);
  }
  return Status(Code::kExhausted, "TENANT_CALLS_IN_FLIGHT",
                "calls of this tenant are " + std::to_string(tenant_percent_.load()) + " % of the " + max +
                    " that this node works on, which is as much as one tenant may have while others call; retry later")
      .with_retry_after_ms(retry);
}

std::shared_ptr<const Status> Pipeline::turn_away(const Method& method, Call::Door door, const TenantLoad* load) {
  const Room room = room_for(&method, load, calls_working() + 1);
  if (room == Room::kYes) return nullptr;
  count(&method, door, Code::kExhausted, 0);
  const uint32_t retry = retry_ms();
  auto& kept = room == Room::kTenantFull ? tenant_no_room_ : no_room_;
  auto known = kept.load();
  if (known == nullptr || known->detail().retry_after_ms != retry) {
    known = std::make_shared<const Status>(no_room(room, retry));
    kept.store(known);
  }
  return known;
}

Status Pipeline::limit_work(const Call& call) const {
  const size_t working = calls_working();
  if (const Room room = room_for(call.method, nullptr, working); room != Room::kYes) return no_room(room, retry_ms());
  // Under load, what cannot be done before its deadline is not begun: nobody would wait for the answer.
  const bool loaded = working > calls_in_flight_max_.load(std::memory_order_relaxed) / 4;
  const int64_t change_us = change_us_.load(std::memory_order_relaxed);
  if (loaded && call.method != nullptr && call.method->lane == Lane::kUser && call.method->mutating && call.deadline &&
      call.deadline->us - call.started.us < change_us) {
    return Status(Code::kExhausted, "DEADLINE_TOO_SHORT",
                  "changes take " + std::to_string(change_us / 1000) +
                      " ms just now, which is longer than the call may take")
        .with_retry_after_ms(retry_ms());
  }
  return Status::ok();
}

// By now it is known whose call it is; those who are not known are bounded all the same.
Status Pipeline::limit_tenant(Call& call, Place* place) {
  if (place == nullptr || call.method->lane != Lane::kUser) return Status::ok();
  if (call.tenant_load == nullptr) {
    return calls_working() <= calls_in_flight_max_.load() ? Status::ok() : no_room(Room::kFull, retry_ms());
  }
  loads_.note(*call.tenant_load, call.started);
  place->count_in(call.tenant_load);
  const Room room = room_for(call.method, call.tenant_load.get(), calls_working());
  return room == Room::kYes ? Status::ok() : no_room(room, retry_ms());
}

// Whoever has used up a quota can still ask what it is, and operators can raise it.
Status Pipeline::limit_quota(const Call& call) const {
  if (options_.quotas == nullptr || !options_.quotas->any()) return Status::ok();
  const std::string_view permission = call.method->permission;
  const bool counts = call.method->lane == Lane::kUser && !call.method->is_public && !permission.starts_with("quotas.");
  if (!counts || !call.principal.is_users()) return Status::ok();
  return options_.quotas->admit({.tenant = call.principal.tenant,
                                 .name_space = call.name_space,
                                 .user = call.principal.name,
                                 .now = call.started,
                                 .wall = clock_.wall()});
}

Status Pipeline::match(const Call& call, std::string_view method_name) {
  if (call.method != nullptr) return Status::ok();
  return Status(
      Code::kUnimplemented, "METHOD_UNKNOWN",
      "there is no method '" + std::string(method_name.substr(0, 200)) + "'; see /openapi.json or reflection");
}

Status Pipeline::authenticate(Call& call) {
  const bool optional = call.method->is_public && call.credentials.bearer_token.empty();
  if (optional && call.credentials.certificate_pem.empty()) return Status::ok();
  const std::string& secret =
      call.credentials.bearer_token.empty() ? call.credentials.certificate_pem : call.credentials.bearer_token;
  if (secret.empty()) {
    return Status(Code::kUnauthenticated, "CREDENTIALS_MISSING",
                  "no credentials; send 'Authorization: Bearer TOKEN' or a client certificate")
        .with_help("security.md#credentials");
  }
  const uint64_t key = hash64(secret);
  const uint64_t revision = authenticator_.revision();
  {
    std::lock_guard lock(cache_mutex_);
    const auto it = cache_.find(key);
    if (it != cache_.end() && it->second->secret == secret && it->second->revision == revision &&
        call.started < it->second->until) {
      call.principal = it->second->principal;
      call.tenant_load = it->second->load;
      return Status::ok();
    }
  }
  auto principal = authenticator_.authenticate(call.credentials);
  // A certificate that says nothing to us does not bar anybody from what is public.
  if (!principal && optional) return Status::ok();
  if (!principal) return principal.error();
  call.principal = std::move(*principal);
  if (call.principal.is_users()) call.tenant_load = loads_.of(call.principal.tenant);
  auto entry =
      std::make_shared<CachedPrincipal>(CachedPrincipal{call.principal, secret, revision, {}, call.tenant_load});
  entry->until = call.started.plus_ms(kCredentialsCachedMs);
  if (call.principal.expires_us > 0) {
    const int64_t left_us = std::max<int64_t>(0, call.principal.expires_us - clock_.wall().us);
    entry->until = std::min(entry->until, BootTime{call.started.us + left_us});
  }
  std::lock_guard lock(cache_mutex_);
  if (cache_.size() >= options_.credentials_cached_max) cache_.clear();
  cache_[key] = std::move(entry);
  return Status::ok();
}

// Who was let in a while ago may have been shut out since. Nodes are known by their certificates alone, and operators
// have to be able to ask why nothing works.
Status Pipeline::check_current(const Call& call) const {
  if (!options_.current) return Status::ok();
  Status stale = options_.current();
  const bool served = stale.is_ok() || call.method->is_public || call.principal.kind == Principal::Kind::kNode ||
                      call.method->permission == "cluster.read";
  return served ? Status::ok() : std::move(stale);
}

Status Pipeline::limit_rate(Call& call) {
  return limiter_.take({.tenant = call.principal.tenant,
                        .principal = call.principal.name,
                        .known = call.principal.kind != Principal::Kind::kAnonymous,
                        .address = call.credentials.address,
                        .method = *call.method,
                        .now = call.started},
                       call.rate);
}

Status Pipeline::decode(Call& call, std::string& request) {
  const Method& method = *call.method;
  if (call.consistency.empty()) {
    call.read_level = method.read_level == DefaultRead::kBounded ? machine::ReadLevel::bounded(method.read_bound_ms)
                                                                 : machine::ReadLevel::linearizable();
  } else {
    UCCP_TRY(call.read_level, machine::parse_read_level(call.consistency));
  }
  call.name_space = call.default_namespace;
  if (call.name_space.empty()) {
    call.name_space = call.principal.namespaces.empty() ? "default" : call.principal.namespaces.front();
  }
  if (method.client_streaming) return call.dry_run ? prepare_dry_run(method, request) : Status::ok();
  // What the door knows fills fields that the request left empty, before anything is checked.
  if (!method.name_space.empty()) {
    const auto named = get_string(method.name_space, request);
    if (named && !named->empty()) call.name_space = *named;
    else set_string(method.name_space, request, call.name_space);
  }
  if (!method.request_id.empty()) {
    const auto id = get_string(method.request_id, request);
    if (id && !id->empty()) call.request_id = *id;
    else if (!call.request_id.empty()) set_string(method.request_id, request, call.request_id);
  }
  if (call.dry_run) UCCP_RETURN_IF_ERROR(prepare_dry_run(method, request));
  UCCP_RETURN_IF_ERROR(validate(*method.request, request));
  if (!method.resource.empty()) call.resource = get_text(method.resource, request).value_or("");
  // Names are text in logs and in the audit trail, also where the contract has bytes.
  if (!is_utf8(call.resource)) call.resource = "0x" + to_hex(call.resource);
  return Status::ok();
}

std::shared_ptr<const PolicySet> Pipeline::policies() const {
  return options_.policies ? options_.policies() : PolicySet::built_in();
}

Status Pipeline::decide(const PolicySet& policies, const Call& call, const Principal& principal,
                        const std::string& request, WallTime wall) {
  const Method& method = *call.method;
  if (method.is_public) return Status::ok();
  const AccessQuery query{.principal = principal,
                          .method = &method,
                          .permission = PermissionTable::get().of(method),
                          .name_space = call.name_space,
                          .resource = call.resource,
                          .request = request,
                          .address = call.credentials.address,
                          .door = door_name(call.door),
                          .wall = wall};
  const Decision decision = policies.decide(query);
  return decision.allowed() ? Status::ok() : policies.denial(query, decision);
}

Status Pipeline::authorize(Call& call, const std::string& request) const {
  const auto set = policies();
  call.policy_revision = set->revision();
  return decide(*set, call, call.principal, request, clock_.wall());
}

Status Pipeline::authorize_again(Call& call, const std::string& request) const {
  const auto set = policies();
  const auto kind = call.principal.kind;
  if (kind == Principal::Kind::kNode || kind == Principal::Kind::kAnonymous) return Status::ok();
  if (set->revision() <= call.policy_revision) return Status::ok();
  UCCP_RETURN_IF_ERROR(authenticator_.check_again(call.principal));
  return decide(*set, call, call.principal, request, clock_.wall());
}

void Pipeline::recheck_streams() {
  streams_.recheck([this](const Call& call, const std::string& request) -> Status {
    if (call.principal.kind == Principal::Kind::kAnonymous) return Status::ok();
    const auto principal = authenticator_.authenticate(call.credentials);
    if (principal) return decide(*policies(), call, *principal, request, clock_.wall());
    // A token that has ended by itself was good when the stream was opened, and that is all that is asked for.
    return principal.error().reason() == "TOKEN_EXPIRED" ? Status::ok() : principal.error();
  });
}

void Pipeline::note_duration(const Call& call) {
  if (call.method == nullptr || !call.method->mutating) return;
  const int64_t took_us = clock_.boot().us - call.started.us;
  const int64_t before = change_us_.load(std::memory_order_relaxed);
  change_us_.store(before + (took_us - before) / 16, std::memory_order_relaxed);
}

void Pipeline::count(const Method* method, Call::Door at, Code code, int64_t took_us) {
  MethodMetrics& metrics = *method_metrics_[method != nullptr ? method->index : Contract::get().methods().size()];
  const auto door = static_cast<size_t>(at);
  auto& counter = metrics.requests[door][static_cast<size_t>(code)];
  auto& seconds = metrics.seconds[door];
  if (counter.load() == nullptr || seconds.load() == nullptr) {
    const std::string name = method != nullptr ? method->full_name : "unknown";
    const std::string prefix = "uccp_" + std::string(door_name(at));
    counter.store(&metrics_.counter(prefix + "_requests_total", "Requests by method and outcome",
                                    {{"method", name}, {"code", std::string(code_info(code).name)}}));
    seconds.store(&metrics_.histogram(prefix + "_duration_seconds", "Time from arrival to answer", {{"method", name}}));
  }
  counter.load()->add();
  seconds.load()->observe(static_cast<double>(took_us) / 1e6);
}

void Pipeline::account(Call& call, const Status& status) {
  enter(call, Stage::kAudit);
  count(call.method, call.door, status.code(), clock_.boot().us - call.started.us);
  const bool denied = status.code() == Code::kPermission || status.code() == Code::kUnauthenticated;
  if (!denied && status.code() != Code::kInternal && status.code() != Code::kCorruption) return;
  log::write({.level = denied ? log::Level::kWarn : log::Level::kError,
              .message = denied ? "call denied" : "call failed",
              .fields = {{"method", call.method != nullptr ? call.method->full_name : "unknown"},
                         {"reason", status.reason()},
                         {"detail", denied ? std::string_view() : std::string_view(status.message())},
                         {"principal", call.principal.name},
                         {"tenant", call.principal.tenant},
                         {"resource", call.resource},
                         {"address", call.credentials.address},
                         {"call_id", call.call_id}},
              .trace_id = std::string_view(call.traceparent).substr(3, 32),
              .category = denied ? log::Category::kSecurity : log::Category::kSystem});
}

}  // namespace uccp::call
