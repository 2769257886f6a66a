#include "server/certificate_wiring.h"

#include <utility>

#include "server/config.h"
#include "services/cluster/cluster_state.h"
#include "services/feature_types.h"
#include "services/identity/identity_state.h"

namespace uccp::server {
namespace {

constexpr int64_t kReportMs = 5'000;

// Through this node if it leads, else through the leader.
void report(const CertificateUsers& users, internal::v1::ReportCertificatesCommand command,
            std::function<void(Status)> done) {
  Status level = services::check_feature_level(users.node.feature_level(), services::kAdministrationLevel);
  if (!level.is_ok()) return done(std::move(level));
  PeerLinks& links = users.cluster.links();
  if (users.has_peers && !links.leads(kCoreGroup)) {
    const NodeId leader = links.leader(kCoreGroup);
    if (!leader) return done(Status(Code::kUnavailable, "NO_LEADER", "there is no leader just now"));
    return links.call(
        leader, "uccp.internal.v1.CertificateLink/Report", command.SerializeAsString(), kReportMs,
        [done = std::move(done)](Result<std::string> answer) { done(answer ? Status::ok() : answer.error()); });
  }
  machine::Envelope envelope;
  envelope.principal = command.node_id();
  envelope.command = std::string(certificates::kDomain) + ".report";
  envelope.payload = command.SerializeAsString();
  users.node.propose(kCoreGroup, std::move(envelope), [done = std::move(done)](Result<machine::Applied> applied) {
    done(applied ? Status::ok() : applied.error());
  });
}

}  // namespace

CertificateSources certificate_sources(const Config& config, const runtime::DevPkiOptions& pki) {
  CertificateSources out;
  out.pki = pki;
  out.certificate_file = config.text("tls_cert_file");
  out.key_file = config.text("tls_key_file");
  out.authority_file = config.text("tls_ca_file");
  out.crl_file = config.text("tls_crl_file");
  out.client_pins = config.text("tls_client_pins");
  out.alert_before_s = config.duration_ms("certificate_alert") / 1000;
  return out;
}

std::string node_name_of(NodeId node) { return "n" + std::to_string(node.value); }

doors::DoorCertificates door_certificates_of(const CertificateMaterial& material, bool asks_clients) {
  return {.certificate_pem = material.server.certificate_pem,
          .key_pem = material.server.key_pem,
          .clients = asks_clients ? material.trust : nullptr};
}

Result<std::unique_ptr<CertificateSide>> open_certificates(const ServerOptions& options,
                                                           CertificateEnvironment environment) {
  CertificateMaterial first;
  first.server = {options.certificate_pem, options.key_pem};
  first.node = options.cluster.identity;
  first.ca_pem = options.client_ca_pem;
  CertificateSources sources = options.certificates;
  sources.node_name = node_name_of(options.node);
  sources.has_peers = options.cluster.enabled;
  return CertificateSide::make(std::move(sources), std::move(first), options.token_key_pem, environment);
}

std::vector<std::string> member_names(const node::Node& node, const std::string& self) {
  std::vector<std::string> out;
  for (const auto& row : cluster::members_of(node.view(kCoreGroup))) {
    if (row.goal() != internal::v1::MEMBER_GOAL_REMOVED) out.push_back(node_name_of(NodeId(row.node())));
  }
  if (out.empty()) out.push_back(self);
  return out;
}

void check_open_connections(const CertificateUsers& users) {
  users.grpc.check_clients();
  if (users.has_etcd) users.etcd.check_clients();
  users.rest.check_clients();
  users.cluster.check_peers();
}

void connect_certificates(CertificateSide& side, CertificateUsers users, std::function<void()> trust_changed) {
  side.on_replace([users](const CertificateMaterial& material) -> Status {
    UCCP_RETURN_IF_ERROR(users.grpc.replace_certificates(door_certificates_of(material, true)));
    if (users.has_etcd) UCCP_RETURN_IF_ERROR(users.etcd.replace_certificates(door_certificates_of(material, true)));
    UCCP_RETURN_IF_ERROR(
        users.rest.replace_certificates(door_certificates_of(material, users.rest_takes_certificates)));
    return users.cluster.replace_certificates(material.node, material.ca_pem, material.trust);
  });
  side.start(
      {.view = [&node = users.node] { return node.view(kCoreGroup); },
       .report = [users](internal::v1::ReportCertificatesCommand command,
                         std::function<void(Status)> done) { report(users, std::move(command), std::move(done)); },
       .trust_changed = std::move(trust_changed),
       .revoked = [&identity = users.identity](const std::string& pem) { return identity.certificate_is_revoked(pem); },
       .revoked_serials = [&identity = users.identity] { return identity.revoked_serials(); }});
}

}  // namespace uccp::server
