// X.509 certificates of the platform: a certificate authority, what it issues, and how a certificate is read.
//
// All keys are EC P-256, all signatures ECDSA with SHA-256, all serial numbers 128 random bits. Nothing here touches
// files. Identities are URIs in the subject alternative name: spiffe://uccp/tenant/<tenant>/principal/<name> for
// clients and spiffe://uccp/cluster/<cluster>/node/<id> for nodes.
// Thread: callable from any thread; holds no state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"

namespace uccp::runtime {

// A certificate and its private key, both PEM. The key is secret: never log it.
struct PemIdentity {
  std::string certificate_pem;
  std::string key_pem;
};

enum class CertificateUse : uint8_t {
  kServer,
  kClient,
  kServerAndClient,  // nodes: they dial each other
};

struct CertificateRequest {
  std::string common_name;
  std::vector<std::string> organizations;  // roles
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
  std::vector<std::string> uris;
  int64_t seconds = int64_t{365} * 24 * 3600;
  CertificateUse use = CertificateUse::kClient;
};

struct CertificateInfo {
  std::string common_name;
  std::vector<std::string> organizations;
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;
  std::vector<std::string> uris;
  WallTime not_before;
  WallTime not_after;
  std::string serial;       // lower-case hex
  std::string fingerprint;  // SHA-256 of the DER form, lower-case hex
  bool is_authority = false;
};

// How long before its issue a certificate is valid already: clocks of the machines of a cluster differ.
inline constexpr int64_t kBackdatedSeconds = 60;

std::string principal_uri(std::string_view tenant, std::string_view principal);
std::string node_uri(std::string_view cluster_id, NodeId node);

// A self-signed authority that can sign certificates but no further authorities, valid from a minute before `now`.
Result<PemIdentity> create_ca(const std::string& common_name, int years, WallTime now);
// A certificate signed by `ca`, valid from a minute before `now`. Errors: invalid CERTIFICATE_REQUEST_INVALID,
// corruption PEM_INVALID for an unreadable authority.
Result<PemIdentity> issue_certificate(const PemIdentity& ca, const CertificateRequest& request, WallTime now);
// A request (PKCS #10) for a certificate of a new key. Only the key in it counts; names come from whoever signs.
struct SigningRequest {
  std::string request_pem;
  std::string key_pem;
};
Result<SigningRequest> make_signing_request();
// As issue_certificate(), for the key of a request; answers the certificate. Errors: also invalid
// SIGNING_REQUEST_INVALID when it is none or is not signed with its own key.
Result<std::string> sign_request(const PemIdentity& ca, const std::string& request_pem, const CertificateRequest& names,
                                 WallTime now);
// A list of revoked serial numbers (hexadecimal), signed by `ca`, to be replaced after `valid_s`.
Result<std::string> make_revocation_list(const PemIdentity& ca, const std::vector<std::string>& serials, WallTime now,
                                         int64_t valid_s);
// The certificates in `pem`, one by one.
std::vector<std::string> split_pem(const std::string& pem);
// Reads the first certificate of `pem`. Errors: corruption PEM_INVALID.
Result<CertificateInfo> inspect_certificate(std::string_view pem);
// OK if the key belongs to the certificate and the certificate is valid at `now` and issued by `ca_pem`. Errors:
// corruption PEM_INVALID, failed_precondition KEY_MISMATCH, CERTIFICATE_UNTRUSTED or CERTIFICATE_EXPIRED.
Status check_identity(const PemIdentity& identity, std::string_view ca_pem, WallTime now);

}  // namespace uccp::runtime
