// The keys of a development cluster or a single node, made once and kept across restarts.
//
// Invariants: private keys are files of mode 0600 in a directory of mode 0700; a certificate is never replaced while it
// is valid for 30 more days and still names what it has to name; the authority, once made, is kept: clients trust it.
// An authority that is about to expire is renewed only together with everything below it.
// Thread: one caller at a time; blocks on disk and on key generation.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_system.h"
#include "base/ids.h"
#include "runtime/pki.h"

namespace uccp::runtime {

struct DevPkiOptions {
  std::string directory;
  std::string cluster_id;
  NodeId node{1};
  std::string tenant = "default";
  // Names and addresses beyond localhost, 127.0.0.1, ::1 and the host's name under which the server is reached.
  std::vector<std::string> hosts;
  // Life of what the authority issues.
  int64_t lifetime_s = int64_t{365} * 24 * 3600;
};

// Where the files are: <directory>/<name>.crt and .key for ca, server, admin, agent and node; token.key. ca.crt may
// hold several authorities; ca.key is the key of the first.
struct DevPkiPaths {
  std::string ca_certificate, ca_key;
  std::string ca_sealed;  // the key, sealed, where ca.key is not; made by the server
  std::string ca_next;    // both, while they are being replaced
  std::string server_certificate, server_key;
  std::string admin_certificate, admin_key;
  std::string agent_certificate, agent_key;
  std::string node_certificate, node_key;
  std::string token_key;
};
DevPkiPaths dev_pki_paths(const std::string& directory);

struct DevPki {
  PemIdentity ca;
  PemIdentity server;         // localhost, 127.0.0.1, ::1, the host's name, DevPkiOptions::hosts
  PemIdentity admin;          // client: principal "admin" of the tenant, organization "admin"
  PemIdentity agent;          // client: principal "agent" of the tenant, organization "agent"
  PemIdentity node;           // both: the node's URI in the cluster
  std::string token_key_pem;  // Ed25519, for TokenSigner
  DevPkiPaths paths;
};

// What the certificates of a node are to say.
struct PkiRequests {
  CertificateRequest server, node, admin, agent;
};
PkiRequests pki_requests(const DevPkiOptions& options);
// How long before its end a certificate is renewed.
int64_t renew_before_us(int64_t lifetime_s);
// Key first: a certificate on disk says that its key is there.
Status store_identity(FileSystem& files, const PemIdentity& identity, const std::string& certificate_path,
                      const std::string& key_path);
// The same for an authority, whose pair must never be torn: after a crash ensure_dev_pki() completes it.
Status replace_authority(FileSystem& files, const PemIdentity& authority, const DevPkiPaths& paths);

// Reads what is there, makes what is missing, renews what is about to expire. Errors: corruption PEM_INVALID for a
// damaged authority (it is never replaced silently), and those of the file system.
Result<DevPki> ensure_dev_pki(FileSystem& files, const Clock& clock, const DevPkiOptions& options);

}  // namespace uccp::runtime
