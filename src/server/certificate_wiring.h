// Connects CertificateSide with the rest of a server: the cluster that it reads and tells, the doors and links that use
// what it has.
#pragma once

#include "doors/grpc/grpc_door.h"
#include "doors/rest/rest_door.h"
#include "server/certificate_side.h"
#include "server/cluster_side.h"
#include "server/identity_side.h"

namespace uccp::server {

// Everything must outlive the side.
struct CertificateUsers {
  node::Node& node;
  ClusterSide& cluster;
  IdentitySide& identity;
  doors::GrpcDoor& grpc;
  doors::GrpcDoor& etcd;
  doors::RestDoor& rest;
  std::string node_name;
  bool has_peers = false;
  bool has_etcd = false;
  bool rest_takes_certificates = true;
};

std::string node_name_of(NodeId node);
// What a door shows.
doors::DoorCertificates door_certificates_of(const CertificateMaterial& material, bool asks_clients);
// The certificates of a node as it starts. Errors: those of CertificateSide::make().
Result<std::unique_ptr<CertificateSide>> open_certificates(const ServerOptions& options,
                                                           CertificateEnvironment environment);
// Ids of the members of the cluster, this node at least.
std::vector<std::string> member_names(const node::Node& node, const std::string& self);
// From now on the users get what is new. The doors are open.
void connect_certificates(CertificateSide& side, CertificateUsers users, std::function<void()> trust_changed);
// Somebody was revoked: open connections are looked at again.
void check_open_connections(const CertificateUsers& users);

}  // namespace uccp::server
