#include "services/certificates/certificates_service.h"

#include <algorithm>
#include <utility>

#include "call/command.h"
#include "machine/read_level.h"
#include "services/feature_types.h"
#include "services/message_types.h"

namespace uccp::certificates {
namespace {

using call::CallPtr;
using internal::v1::AuthoritiesRow;
using internal::v1::RotateCertificatesCommand;
using services::parse;
using services::set_wall;

constexpr int64_t kOverlapDefaultMs = 24 * 3'600'000;
// How long an answer waits for the nodes to have their new certificates.
constexpr int64_t kNodesWaitMs = 10'000;
constexpr int64_t kPollMs = 100;
// An agent asks again after so long even if nothing has changed.
constexpr int64_t kTrustWaitMs = 30'000;

std::string admin(std::string_view rpc) { return "uccp.v1.Administration/" + std::string(rpc); }
std::string link(std::string_view rpc) { return "uccp.internal.v1.CertificateLink/" + std::string(rpc); }

// The nodes that a rotation is about and that have not followed it yet.
std::vector<std::string> behind(const AuthoritiesRow& row, const machine::GroupView& view,
                                const std::vector<std::string>& members) {
  std::vector<std::string> out;
  for (const std::string& node : members) {
    if (row.node_ids_size() > 0 && std::ranges::find(row.node_ids(), node) == row.node_ids().end()) continue;
    const auto told = kNodeCertificates.get(view, {}, node);
    if (!told || told->generation() < row.generation()) out.push_back(node);
  }
  return out;
}

}  // namespace

CertificatesService::CertificatesService(CertificatesEnvironment environment) : env_(std::move(environment)) {}

void CertificatesService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(admin("RotateCertificates"),
               [this](const CallPtr& call, const std::string& bytes) { rotate(call, bytes); });
  handlers.add(admin("GetCertificates"), [this](const CallPtr& call, const std::string&) { get(call); });
  handlers.add_parsed<internal::v1::WaitTrustRequest>(
      link("WaitTrust"), [this](const CallPtr& call, const auto& request) { wait_trust(call, request); });
  handlers.add_parsed<internal::v1::SignRequest>(
      link("Sign"), [this](const CallPtr& call, const auto& request) { sign(call, request); });
  handlers.add_parsed<internal::v1::ReportCertificatesCommand>(
      link("Report"), [this](const CallPtr& call, const auto& command) { report(call, command); });
}

void CertificatesService::rotate(const CallPtr& call, const std::string& bytes) {
  const auto request = parse<v1::RotateCertificatesRequest>(bytes);
  if (Status own = env_.authority.is_own(); !own.is_ok()) return call->finish(std::move(own));
  Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
  if (!level.is_ok()) return call->finish(std::move(level));
  const WallTime now = env_.clock.wall();
  RotateCertificatesCommand command;
  command.set_scope(request.scope() == v1::CERTIFICATE_SCOPE_UNSPECIFIED ? v1::CERTIFICATE_SCOPE_NODES
                                                                         : request.scope());
  *command.mutable_node_ids() = request.node_ids();
  command.set_request_us(now.us);
  const auto known = env_.authority.known();
  command.mutable_known()->Assign(known.rbegin(), known.rend());
  const int64_t overlap_ms = request.has_overlap() ? services::ms_of(request.overlap()) : kOverlapDefaultMs;
  command.set_old_trusted_until_us(now.us + overlap_ms * 1000);
  if (command.scope() == v1::CERTIFICATE_SCOPE_AUTHORITY) {
    auto made = env_.authority.make_authority();
    if (!made) return call->finish(std::move(made.error()));
    *command.mutable_authority() = std::move(*made);
    command.mutable_authority()->set_signs_from_us(now.us + overlap_ms * 500);
  } else if (!env_.authority.trust().can_sign()) {
    return call->finish(Status(Code::kFailedPrecondition, "AUTHORITY_KEY_MISSING",
                               "no node has the key of the authority, so it cannot sign new certificates; make a new "
                               "authority: certificate rotate --scope AUTHORITY")
                            .with_help("security.md#rotation"));
  }
  auto envelope = call::make_envelope(*call, bytes, std::string(kDomain) + ".rotate", command.SerializeAsString());
  envelope.scope.name_space.clear();
  env_.proposer.propose(
      kCoreGroup, std::move(envelope), [this, call, scope = command.scope()](Result<machine::Applied> applied) {
        if (!applied) return call->finish(std::move(applied.error()));
        call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, applied->index}}));
        const auto row = parse<AuthoritiesRow>(applied->response);
        if (scope == v1::CERTIFICATE_SCOPE_NODES) {
          return await_nodes(call, row, applied->index, env_.clock.boot().us / 1000 + kNodesWaitMs);
        }
        v1::RotateCertificatesResponse out;
        if (scope == v1::CERTIFICATE_SCOPE_AUTHORITY) {
          auto made =
              env_.authority.describe(row.authorities().rbegin()->certificate_pem(), v1::CERTIFICATE_KIND_AUTHORITY);
          if (made) *out.add_certificates() = std::move(*made);
          int64_t until = 0;
          for (const auto& authority : row.authorities()) until = std::max(until, authority.trusted_until_us());
          set_wall(out.mutable_old_valid_until(), {until > 0 ? until : env_.clock.wall().us});
        }
        call->reply(out.SerializeAsString());
      });
}

// Answers when all nodes have told of their new certificates, or with those that have after a while.
void CertificatesService::await_nodes(const CallPtr& call, const AuthoritiesRow& row, LogIndex index,
                                      int64_t until_ms) {
  env_.reader.read(kCoreGroup, call->read_level, [this, call, row, index, until_ms](Result<machine::GroupView> view) {
    if (call->finished()) return;
    if (!view) return call->finish(std::move(view.error()));
    const auto members = env_.members();
    const bool over = env_.clock.boot().us / 1000 >= until_ms;
    if (!over && !behind(row, *view, members).empty()) {
      env_.timers.post_after(kPollMs, [this, call, row, index, until_ms] { await_nodes(call, row, index, until_ms); });
      return;
    }
    v1::RotateCertificatesResponse out;
    for (const std::string& node : members) {
      if (row.node_ids_size() > 0 && std::ranges::find(row.node_ids(), node) == row.node_ids().end()) continue;
      const auto told = kNodeCertificates.get(*view, {}, node);
      if (told && told->generation() >= row.generation()) out.mutable_certificates()->MergeFrom(told->certificates());
    }
    call->reply(out.SerializeAsString());
  });
}

void CertificatesService::get(const CallPtr& call) {
  env_.reader.read(kCoreGroup, call->read_level, [this, call](Result<machine::GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    call->reply(shown(*view).SerializeAsString());
  });
}

v1::Certificates CertificatesService::shown(const machine::GroupView& view) const {
  v1::Certificates out;
  const auto row = kAuthorities.get(view, {}, "").value_or(AuthoritiesRow());
  std::vector<internal::v1::AuthorityRow> authorities;
  for (const auto* authority : trusted_authorities(row, env_.clock.wall())) authorities.push_back(*authority);
  if (authorities.empty()) authorities = env_.authority.known();
  for (const auto& authority : authorities) {
    auto one = env_.authority.describe(authority.certificate_pem(), v1::CERTIFICATE_KIND_AUTHORITY);
    if (!one) continue;
    one->set_pem(authority.certificate_pem());
    if (authority.trusted_until_us() != 0) set_wall(one->mutable_trusted_until(), {authority.trusted_until_us()});
    out.mutable_ca_pem()->append(authority.certificate_pem());
    *out.add_certificates() = std::move(*one);
  }
  const auto members = env_.members();
  kNodeCertificates.scan(view, {}, "", "", [&](std::string_view node, const internal::v1::NodeCertificatesRow& told) {
    if (std::ranges::find(members, node) != members.end()) out.mutable_certificates()->MergeFrom(told.certificates());
    return true;
  });
  out.set_crl_pem(env_.authority.revocation_list());
  return out;
}

void CertificatesService::wait_trust(const CallPtr& call, const internal::v1::WaitTrustRequest& request) {
  {
    // Under the lock: a change that comes now finds the call among those that wait.
    std::lock_guard lock(mutex_);
    const internal::v1::Trust trust = env_.authority.trust();
    if (trust.revision() != request.revision()) return call->reply(trust.SerializeAsString());
    waiting_.emplace(call.get(), call);
  }
  const auto leave = [this, key = call.get()] {
    std::lock_guard lock(mutex_);
    const auto found = waiting_.find(key);
    return found == waiting_.end() ? CallPtr() : std::exchange(waiting_.extract(found).mapped(), nullptr);
  };
  call->on_cancel([leave] { (void)leave(); });
  call->begin_waiting();
  env_.timers.post_after(kTrustWaitMs, [this, leave] {
    if (const CallPtr over = leave()) over->reply(env_.authority.trust().SerializeAsString());
  });
}

void CertificatesService::trust_changed() {
  std::map<const call::Call*, CallPtr> waiting;
  {
    std::lock_guard lock(mutex_);
    waiting.swap(waiting_);
  }
  const std::string trust = env_.authority.trust().SerializeAsString();
  for (const auto& [key, call] : waiting) call->reply(trust);
}

void CertificatesService::sign(const CallPtr& call, const internal::v1::SignRequest& request) {
  const auto& principal = call->principal;
  if (principal.credential != call::Principal::Credential::kCertificate ||
      principal.kind != call::Principal::Kind::kAgent) {
    return call->finish(
        Status(Code::kPermission, "AGENTS_ONLY", "only an agent that shows its certificate gets another one"));
  }
  auto made = env_.authority.sign(request.request_pem(), call->credentials.certificate_pem);
  if (!made) return call->finish(std::move(made.error()));
  internal::v1::SignResponse out;
  out.set_certificate_pem(std::move(*made));
  out.set_ca_pem(env_.authority.trust().ca_pem());
  call->reply(out.SerializeAsString());
}

void CertificatesService::report(const CallPtr& call, const internal::v1::ReportCertificatesCommand& command) {
  if (call->principal.kind != call::Principal::Kind::kNode || call->principal.name != command.node_id()) {
    return call->finish(
        Status(Code::kPermission, "NODES_ONLY", "only the node itself tells which certificates it shows"));
  }
  Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
  if (!level.is_ok()) return call->finish(std::move(level));
  machine::Envelope envelope;
  envelope.principal = call->principal.name;
  envelope.command = std::string(kDomain) + ".report";
  envelope.payload = command.SerializeAsString();
  env_.proposer.propose(kCoreGroup, std::move(envelope), [call](Result<machine::Applied> applied) {
    if (!applied) return call->finish(std::move(applied.error()));
    call->reply(internal::v1::ReportCertificatesResponse().SerializeAsString());
  });
}

}  // namespace uccp::certificates
