#include "services/elections/elections_service.h"

#include <cmath>

#include "base/bytes.h"
#include "call/command.h"
#include "services/coordination_stream.h"
#include "services/feature_types.h"
#include "services/message_types.h"

namespace uccp::elections {
namespace {

using call::CallPtr;
using coordination::scope_of;
using coordination::Waits;
using internal::v1::ElectionCandidate;
using internal::v1::ElectionResult;
using internal::v1::ElectionRow;
using machine::GroupView;
using machine::ReadLevel;
using services::ms_of;
using services::set_wall;
using services::us_of;

constexpr int64_t kRenewBoundMs = 5000;
constexpr int64_t kMetricsBoundMs = 24 * 3600 * 1000;
// Scores are kept in millionths.
constexpr double kScoreMax = 9e12;

std::string method_name(std::string_view rpc) { return "uccp.v1.Coordination/" + std::string(rpc); }
std::string lease_key(uint64_t lease) { return ByteWriter().u64(lease).take(); }
void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}
int64_t micros(double value) { return std::llround(std::clamp(value, -kScoreMax, kScoreMax) * 1e6); }
double from_micros(int64_t micros) { return static_cast<double>(micros) / 1e6; }

Result<internal::v1::CandidateCommand> candidate_command(const std::string& group, const std::string& lease_id) {
  UCCP_TRY(const coordination::LeaseProof proof, coordination::parse_lease(lease_id));
  internal::v1::CandidateCommand command;
  command.set_group(group);
  command.set_lease(proof.lease);
  command.set_secret(proof.secret);
  return command;
}

void show_candidate(const ElectionCandidate& c, const coordination::LeaseTimes& times, v1::Candidate* out) {
  out->set_id(c.id());
  out->set_address(c.address());
  out->set_priority(c.priority());
  out->set_weight(c.weight());
  out->set_load(from_micros(c.load_micros()));
  out->set_score(from_micros(c.score_micros()));
  out->set_region(c.region());
  out->set_zone(c.zone());
  out->set_observer(c.observer());
  *out->mutable_metadata() = c.metadata();
  *out->mutable_enter_time() = c.enter_time();
  set_wall(out->mutable_expire_time(), {times.times(c.lease(), us_of(c.enter_time()), c.ttl_ms()).expire_us});
}

}  // namespace

// One call that waits to lead.
struct ElectionsService::Campaign {
  CallPtr call;
  machine::Scope scope;
  std::string group;
  int64_t wait_ms = 0;
  BootTime started;
  ElectionCandidate candidate;
};

ElectionsService::ElectionsService(ElectionsEnvironment environment)
    : env_(std::move(environment)),
      times_(env_.clock.wall()),
      waits_(Waits::make(std::string(kTopic), {env_.watcher, env_.leases, env_.work, env_.clock},
                         [](const machine::Change& change) {
                           if (static_cast<ChangeKind>(change.kind) != ChangeKind::kElected) return std::string();
                           const auto c = services::parse<ElectionResult>(change.payload);
                           return lease_key(c.candidate().lease());
                         })) {
  struct Last {
    std::mutex mutex;
    std::map<std::string, uint64_t, std::less<>> counts;
  };
  const auto last = std::make_shared<Last>();
  const auto count = [&reader = env_.reader, last](const std::string& what) {
    reader.read(kCoreGroup, ReadLevel::bounded(kMetricsBoundMs), [last, what](Result<GroupView> view) {
      if (!view) return;
      const uint64_t fresh = read_count(*view, what);
      std::lock_guard lock(last->mutex);
      last->counts[what] = fresh;
    });
    std::lock_guard lock(last->mutex);
    return static_cast<double>(last->counts[what]);
  };
  env_.metrics.callback("uccp_elections_led", "Election groups that have a leader",
                        [count] { return count("leaders"); });
  env_.metrics.callback("uccp_election_candidates", "Candidates of all election groups",
                        [count] { return count("candidates"); });
  env_.metrics.callback("uccp_election_terms_total", "Leaderships that began", [count] { return count("terms"); });
}

void ElectionsService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("ElectLeader"),
               [this](const CallPtr& call, std::string bytes) { elect(call, std::move(bytes)); });
  handlers.add(method_name("TransferLeadership"),
               [this](const CallPtr& call, std::string bytes) { transfer(call, std::move(bytes)); });
  handlers.add(method_name("ResignLeadership"),
               [this](const CallPtr& call, std::string bytes) { resign(call, std::move(bytes)); });
  handlers.add(method_name("ListElections"),
               [this](const CallPtr& call, std::string bytes) { list(call, std::move(bytes)); });
  handlers.add_parsed<v1::RenewLeadershipRequest>(
      method_name("RenewLeadership"), [this](const CallPtr& call, const v1::RenewLeadershipRequest& request) {
        renew(call, request, ReadLevel::bounded(kRenewBoundMs));
      });
  handlers.add_parsed<v1::GetLeaderRequest>(
      method_name("GetLeader"),
      [this](const CallPtr& call, const v1::GetLeaderRequest& request) { get(call, request); });
  handlers.add_parsed<v1::WatchLeaderRequest>(
      method_name("WatchLeader"),
      [this](const CallPtr& call, const v1::WatchLeaderRequest& request) { watch(call, request); });
}

uint64_t ElectionsService::draw() {
  std::lock_guard lock(random_mutex_);
  return env_.random.next();
}

void ElectionsService::propose(const CallPtr& call, std::string_view bytes, std::string_view verb,
                               const google::protobuf::MessageLite& payload,
                               std::function<void(ElectionResult, LogIndex)> done) {
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kDomain) + "." + std::string(verb), payload.SerializeAsString());
  // A renewal is repeatable by nature: a key that came with it must not freeze its effect.
  if (call->method->naturally_idempotent) envelope.dedup = {};
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<machine::Applied> applied) {
                          if (!applied) return call->finish(std::move(applied.error()));
                          put_session(call, applied->index);
                          done(services::parse<ElectionResult>(applied->response), applied->index);
                        });
}

void ElectionsService::read(const CallPtr& call, OnView on_view) {
  env_.reader.read(kCoreGroup, call->read_level, [call, on_view = std::move(on_view)](Result<GroupView> view) mutable {
    if (!view) return call->finish(std::move(view.error()));
    put_session(call, view->applied());
    on_view(call, std::move(*view));
  });
}

v1::Election ElectionsService::shown(const std::string& name_space, const ElectionRow& row,
                                     const ElectionCandidate* own) const {
  v1::Election out;
  out.set_group(row.group());
  out.set_namespace_(name_space);
  out.set_term(row.term());
  out.set_strategy(static_cast<v1::ElectionStrategy>(row.strategy()));
  *out.mutable_create_time() = row.create_time();
  if (const ElectionCandidate* leader = find_candidate(row, row.leader()); leader != nullptr && !row.leader().empty()) {
    show_candidate(*leader, times_, out.mutable_leader());
    *out.mutable_elected_at() = row.history(0).start_time();
  }
  if (!row.history().empty()) out.set_fencing_token(row.history(0).fencing_token());
  for (const ElectionCandidate& candidate : ranked(row)) show_candidate(candidate, times_, out.add_candidates());
  for (const auto& term : row.history()) {
    v1::Leadership& past = *out.add_history();
    past.set_term(term.term());
    past.set_candidate_id(term.candidate_id());
    *past.mutable_start_time() = term.start_time();
    if (term.has_end_time()) *past.mutable_end_time() = term.end_time();
    past.set_end_reason(static_cast<v1::LeadershipEnd>(term.end_reason()));
    past.set_fencing_token(term.fencing_token());
  }
  if (own != nullptr) {
    out.set_is_leader(row.leader() == own->id());
    out.set_lease_id(coordination::lease_text(own->lease(), own->secret()));
    set_wall(out.mutable_expire_time(),
             {times_.times(own->lease(), us_of(own->enter_time()), own->ttl_ms()).expire_us});
  }
  return out;
}

// --- campaigns ------------------------------------------------------------------------------------------------------

void ElectionsService::elect(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ElectLeaderRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  const bool weighted = request->strategy() == v1::ELECTION_STRATEGY_WEIGHTED || request->candidate().weight() != 0;
  if (weighted && env_.feature_level) {
    Status level = services::check_feature_level(env_.feature_level(), services::kCoordinationLevel);
    if (!level.is_ok()) return call->finish(std::move(level));
  }
  internal::v1::EnterElectionCommand command;
  command.set_group(request->group());
  command.set_strategy(request->strategy());
  command.set_preferred_region(request->preferred_region());
  command.set_preferred_zone(request->preferred_zone());
  const v1::Candidate& asked = request->candidate();
  ElectionCandidate& candidate = *command.mutable_candidate();
  candidate.set_id(asked.id());
  candidate.set_secret(draw());
  candidate.set_principal(call->principal.name);
  candidate.set_address(asked.address());
  candidate.set_priority(asked.priority());
  candidate.set_weight(asked.weight());
  candidate.set_load_micros(micros(asked.load()));
  candidate.set_score_micros(micros(asked.score()));
  candidate.set_region(asked.region());
  candidate.set_zone(asked.zone());
  candidate.set_observer(asked.observer());
  *candidate.mutable_metadata() = asked.metadata();
  candidate.set_ttl_ms(ms_of(request->ttl()));
  auto campaign = std::make_shared<Campaign>();
  campaign->call = call;
  campaign->scope = scope_of(*call);
  campaign->group = request->group();
  campaign->wait_ms = ms_of(request->wait_timeout());
  campaign->started = env_.clock.boot();
  propose(call, bytes, "enter", command, [this, campaign](const ElectionResult& result, LogIndex index) {
    if (campaign->call->request_id.empty()) return entered(campaign, result.row(), result.candidate(), index);
    // The answer to a repeated request is that of the first one: the candidacy, or its leadership, may have ended
    // since.
    const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, index}}};
    env_.reader.read(kCoreGroup, level, [this, campaign, index, was = result.candidate()](Result<GroupView> view) {
      if (!view) return campaign->call->finish(std::move(view.error()));
      const auto row = kGroups.get(*view, campaign->scope, campaign->group).value_or(ElectionRow());
      const auto* own = find_candidate(row, was.lease(), was.secret());
      if (own == nullptr) return campaign->call->finish(candidacy_ended(campaign->group));
      entered(campaign, row, *own, index);
    });
  });
}

void ElectionsService::entered(const std::shared_ptr<Campaign>& campaign, const ElectionRow& row,
                               const ElectionCandidate& own, LogIndex index) {
  times_.heard(own.lease(), env_.clock.wall(), own.ttl_ms());
  const bool leads = row.leader() == own.id();
  if (leads || campaign->wait_ms == 0 || own.observer()) {
    return campaign->call->reply(shown(campaign->scope.name_space, row, &own).SerializeAsString());
  }
  campaign->candidate = own;
  wait(campaign, index);
}

void ElectionsService::wait(const std::shared_ptr<Campaign>& campaign, LogIndex since) {
  Waits::Wait w;
  w.key = lease_key(campaign->candidate.lease());
  w.since = since;
  w.lease = campaign->candidate.lease();
  w.lease_ttl_ms = campaign->candidate.ttl_ms();
  w.until = coordination::wait_until(*campaign->call, campaign->wait_ms, campaign->started);
  const uint64_t id = waits_->add(
      campaign->call, std::move(w),
      [this, campaign](Waits::End why, const machine::Change* change) { wait_ended(campaign, why, change); });
  look(campaign, id, since);
}

void ElectionsService::look(const std::shared_ptr<Campaign>& campaign, uint64_t wait_id, LogIndex since) {
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, since}}};
  env_.reader.read(kCoreGroup, level, [this, campaign, wait_id](Result<GroupView> view) {
    if (!view) return;
    const auto row = kGroups.get(*view, campaign->scope, campaign->group).value_or(ElectionRow());
    const auto* own = find_candidate(row, campaign->candidate.lease(), campaign->candidate.secret());
    if (own != nullptr && row.leader() != own->id()) return;
    if (!waits_->remove(wait_id)) return;
    if (own == nullptr) return campaign->call->finish(candidacy_ended(campaign->group));
    campaign->call->reply(shown(campaign->scope.name_space, row, own).SerializeAsString());
  });
}

void ElectionsService::wait_ended(const std::shared_ptr<Campaign>& campaign, Waits::End why,
                                  const machine::Change* change) {
  const CallPtr& call = campaign->call;
  switch (why) {
    case Waits::End::kChange: {
      const auto c = services::parse<ElectionResult>(change->payload);
      put_session(call, change->index);
      times_.heard(c.candidate().lease(), env_.clock.wall(), c.candidate().ttl_ms());
      return call->reply(shown(campaign->scope.name_space, c.row(), &c.candidate()).SerializeAsString());
    }
    case Waits::End::kTimeout:
      return call->finish(Status(Code::kDeadline, "ELECTION_WAIT_TIMEOUT",
                                 campaign->candidate.id() + " did not become the leader of " + campaign->group +
                                     " in time; its candidacy stays until its ttl ends")
                              .with_resource("election", campaign->group));
    case Waits::End::kCancelled: return call->finish(Status(Code::kCancelled, "CANCELLED", "the client went away"));
    case Waits::End::kLookAgain:
      return env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, campaign](Result<GroupView> view) {
        if (!view) return campaign->call->finish(std::move(view.error()));
        wait(campaign, view->applied());
      });
    case Waits::End::kStopping:
      return call->finish(
          Status(Code::kUnavailable, "WAIT_INTERRUPTED",
                 "this node no longer serves the wait; enter again, the candidacy stays until its ttl ends")
              .with_retry_after_ms(200));
  }
}

void ElectionsService::transfer(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::TransferLeadershipRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  internal::v1::CandidateCommand command;
  if (!request->lease_id().empty()) {
    auto with_proof = candidate_command(request->group(), request->lease_id());
    if (!with_proof) return call->finish(std::move(with_proof.error()));
    command = std::move(*with_proof);
  } else if (!env_.permits(call->principal, "elections.admin")) {
    return call->finish(
        Status(Code::kPermission, "PERMISSION_DENIED",
               call->principal.name + " lacks the permission elections.admin; the leader itself sends its lease id")
            .with_help("security.md#roles"));
  }
  command.set_group(request->group());
  command.set_target(request->target_id());
  propose(call, bytes, "transfer", command, [this, call](const ElectionResult& result, LogIndex) {
    call->reply(shown(call->name_space, result.row(), nullptr).SerializeAsString());
  });
}

void ElectionsService::resign(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ResignLeadershipRequest>(bytes);
  if (!request) return call->finish(std::move(request.error()));
  auto command = candidate_command(request->group(), request->lease_id());
  if (!command) return call->finish(std::move(command.error()));
  propose(call, bytes, "resign", *command, [this, call](const ElectionResult& result, LogIndex) {
    call->reply(shown(call->name_space, result.row(), nullptr).SerializeAsString());
  });
}

void ElectionsService::renew(const CallPtr& call, const v1::RenewLeadershipRequest& request, const ReadLevel& level) {
  auto command = candidate_command(request.group(), request.lease_id());
  if (!command) return call->finish(std::move(command.error()));
  const bool fresh = level.kind == ReadLevel::Kind::kLinearizable;
  env_.reader.read(
      kCoreGroup, level, [this, call, fresh, request, command = std::move(*command)](Result<GroupView> view) mutable {
        if (!view) return call->finish(std::move(view.error()));
        const auto row = kGroups.get(*view, scope_of(*call), request.group()).value_or(ElectionRow());
        const ElectionCandidate* own = find_candidate(row, command.lease(), command.secret());
        if (own == nullptr && fresh) return call->finish(candidacy_ended(request.group()));
        if (own == nullptr) return renew(call, request, ReadLevel::linearizable());
        if (request.has_load() && micros(request.load()) != own->load_micros())
          command.set_load_micros(micros(request.load()));
        if (request.has_score() && micros(request.score()) != own->score_micros())
          command.set_score_micros(micros(request.score()));
        env_.leases.keep_alive(kCoreGroup, own->lease(), [this, call, command](Result<int64_t> ttl) {
          if (!ttl) {
            const bool gone = ttl.error().code() == Code::kNotFound;
            return call->finish(gone ? candidacy_ended(command.group()) : std::move(ttl.error()));
          }
          times_.heard(command.lease(), env_.clock.wall(), *ttl);
          // Only a change of load or score is worth a log entry.
          if (command.has_load_micros() || command.has_score_micros()) {
            return propose(call, "", "report", command, [this, call](const ElectionResult& result, LogIndex) {
              call->reply(shown(call->name_space, result.row(), &result.candidate()).SerializeAsString());
            });
          }
          // Whether it still leads must not be a stale answer: the lease may have been handed over since.
          env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, call, command](Result<GroupView> view) {
            if (!view) return call->finish(std::move(view.error()));
            const auto row = kGroups.get(*view, scope_of(*call), command.group()).value_or(ElectionRow());
            const ElectionCandidate* own = find_candidate(row, command.lease(), command.secret());
            if (own == nullptr) return call->finish(candidacy_ended(command.group()));
            call->reply(shown(call->name_space, row, own).SerializeAsString());
          });
        });
      });
}

// --- reads ----------------------------------------------------------------------------------------------------------

void ElectionsService::get(const CallPtr& call, const v1::GetLeaderRequest& request) {
  read(call, [this, group = request.group()](const CallPtr& call, const GroupView& view) {
    const auto row = kGroups.get(view, scope_of(*call), group);
    if (!row) return call->finish(group_not_found(group));
    call->reply(shown(call->name_space, *row, nullptr).SerializeAsString());
  });
}

void ElectionsService::list(const CallPtr& call, std::string bytes) {
  const auto scope = scope_of(*call);
  const bool everywhere = scope.name_space == "-";
  auto query = call::compile_list(
      *call->method, bytes,
      {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope, .key_order = everywhere ? "" : "group"});
  if (!query) return call->finish(std::move(query.error()));
  read(call, [this, scope, everywhere, query = std::move(*query)](const CallPtr& call, GroupView view) {
    env_.work.post([this, call, scope, everywhere, query, view = std::move(view)] {
      if (call->finished()) return;
      const std::string tenant = machine::table_key::begin(kGroupsTable).key_part(scope.tenant).take();
      const std::string all = everywhere ? tenant : machine::table_key::scope_prefix(kGroupsTable, scope);
      auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
        const std::string from = after.empty() ? all : tenant + std::string(after) + '\0';
        view.scan(from, machine::prefix_end(all), [&](std::string_view key, std::string_view value) {
          const std::string_view at = key.substr(tenant.size());
          return visit(
              at, shown(ByteReader(at).key_part(), services::parse<ElectionRow>(value), nullptr).SerializeAsString());
        });
      });
      if (!page) return call->finish(std::move(page.error()));
      call->reply(call::encode_page(*call->method, *page));
    });
  });
}

void ElectionsService::watch(const CallPtr& call, const v1::WatchLeaderRequest& request) {
  const auto scope = scope_of(*call);
  const auto item = [this, name_space = scope.name_space](v1::ElectionEventKind kind, const ElectionRow& row) {
    v1::ElectionEvent event;
    event.set_kind(kind);
    *event.mutable_election() = shown(name_space, row, nullptr);
    return event.SerializeAsString();
  };
  coordination::EventStream::Source source{.topic = std::string(kTopic), .scope = scope};
  source.initial = [scope, item, group = request.group()](const GroupView& view, std::string_view position,
                                                          const coordination::EventStream::Visit& visit) {
    if (!position.empty()) return;
    ElectionRow row = kGroups.get(view, scope, group).value_or(ElectionRow());
    row.set_group(group);
    visit(group, item(v1::ELECTION_EVENT_KIND_PRESENT, row));
  };
  source.changed = [item, group = request.group()](const machine::Change& change) -> std::optional<std::string> {
    if (change.key != group) return std::nullopt;
    return item(static_cast<v1::ElectionEventKind>(change.kind), services::parse<ElectionResult>(change.payload).row());
  };
  Status status = coordination::EventStream::open(call, request.since(), std::move(source),
                                                  {env_.reader, env_.watcher, env_.work, env_.clock});
  if (!status.is_ok()) call->finish(std::move(status));
}

}  // namespace uccp::elections
