// Opens the doors and joins them to what changes while they are open.
#include "server/server_parts.h"

namespace uccp::server {

// The etcd API on its own port: the same pipeline behind it. Answers its address, or nothing when it stays closed.
Result<std::string> Server::Parts::open_etcd(const ServerOptions& options, const Config& config) {
  if (!options.etcd_port) return std::string();
  UCCP_TRY(doors::GrpcDoorOptions door, grpc_options_of(config, "etcd"));
  door.host = options.host;
  door.port = *options.etcd_port;
  door.certificates = door_certificates_of(certificates->current(), true);
  door.name = "etcd";
  door.node = loop.get();
  const std::shared_ptr<doors::EtcdContext> context(
      new doors::EtcdContext{.pipeline = *pipeline,
                             .timers = *watch,
                             .cluster_id = hash64(identity.cluster_id),
                             .member_id = options.node.value,
                             .host = options.host,
                             .term = [this] { return node->known_term(kCoreGroup).value; }});
  door.foreign = doors::etcd_api(context);
  UCCP_TRY(const uint16_t port,
           etcd.start(std::move(door), *pipeline, clock, metrics, [this] { return health->ready(); }));
  context->port = port;
  return options.host + ":" + std::to_string(port);
}

CertificateUsers Server::Parts::certificate_users(const ServerOptions& options) {
  return {.node = *node,
          .cluster = *cluster,
          .identity = *identity_side,
          .grpc = grpc,
          .etcd = etcd,
          .rest = rest,
          .node_name = node_name_of(options.node),
          .has_peers = options.cluster.enabled,
          .has_etcd = options.etcd_port.has_value(),
          .rest_takes_certificates = options.rest_takes_certificates};
}

Status Server::Parts::open_doors(const ServerOptions& options, const Config& config) {
  const CertificateMaterial shown = certificates->current();
  UCCP_TRY(doors::GrpcDoorOptions grpc_options, grpc_options_of(config));
  grpc_options.host = options.host;
  grpc_options.port = options.grpc_port;
  grpc_options.certificates = door_certificates_of(shown, true);
  grpc_options.node = loop.get();
  UCCP_TRY(const uint16_t grpc_port,
           grpc.start(grpc_options, *pipeline, clock, metrics, [this] { return health->ready(); }));
  UCCP_TRY(const std::string etcd_endpoint, open_etcd(options, config));
  std::string dns_endpoint;
  if (options.dns_port) {
    UCCP_TRY(dns, DnsSide::open(*options.dns_port, config, options.token_key_pem, *pipeline, clock, metrics));
    dns_endpoint = dns->endpoint();
  }
  UCCP_TRY(doors::RestDoorOptions rest_options, rest_options_of(config));
  rest_options.http.host = options.host;
  rest_options.http.port = options.https_port;
  rest_options.http.certificates = door_certificates_of(shown, options.rest_takes_certificates);
  rest_options.handlers = &handlers;
  UCCP_TRY(const uint16_t https_port, rest.start(rest_options, *pipeline, clock, metrics, *health));
  UCCP_TRY(const uint16_t metrics_port,
           metrics_door.start({.host = options.metrics_host, .port = options.metrics_port}, clock, metrics, *health));
  const auto at = [](const std::string& host, uint16_t port) { return host + ":" + std::to_string(port); };
  endpoints = {at(options.host, grpc_port),
               at(options.host, https_port),
               at(options.metrics_host, metrics_port),
               etcd_endpoint,
               cluster->raft_address(),
               identity.cluster_id,
               dns_endpoint};
  const CertificateUsers users = certificate_users(options);
  connect_certificates(*certificates, users, [this] { certificates_service->trust_changed(); });
  identity_side->on_change([this, users] {
    pipeline->recheck_streams();
    check_open_connections(users);
  });
  follow_settings(*settings, {*pipeline, *identity_side, *certificates});
  settings->start([this] { return node->view(kCoreGroup); });
  health->set_started();
  cluster->serve(endpoints);
  if (checks) checks->start();
  return Status::ok();
}

}  // namespace uccp::server
