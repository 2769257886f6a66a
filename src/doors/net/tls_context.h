// The OpenSSL context of a door: TLS 1.3 only, one policy for client certificates.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/peer_trust.h"
#include "base/status.h"

struct ssl_ctx_st;
struct ssl_st;

namespace uccp::doors {

struct FreeTlsContext {
  void operator()(ssl_ctx_st* context) const;
};
using TlsContextPtr = std::unique_ptr<ssl_ctx_st, FreeTlsContext>;

// What the door speaks, agreed on by ALPN. A client that offers nothing is served as well; of those that offer only
// something else the HTTP/1.1 door serves all and the HTTP/2 door none.
enum class TlsProtocol : uint8_t { kHttp1, kHttp2 };

// What a door shows its clients, and whose certificates it takes. Replaced while the door serves.
struct DoorCertificates {
  std::string certificate_pem;  // the leaf first
  std::string key_pem;
  std::shared_ptr<const PeerTrust> clients;  // null: no client certificate is asked for
};

// No tickets; asks for a client certificate if `clients` is there and verifies it if there is one. Errors: invalid
// PEM_INVALID, failed_precondition KEY_MISMATCH.
Result<TlsContextPtr> make_tls_context(const DoorCertificates& certificates, TlsProtocol protocol);
// Of one without revocations.
Result<DoorCertificates> door_certificates(const std::string& certificate_pem, const std::string& key_pem,
                                           const std::string& client_ca_pem);

// The verified certificate that the client showed, PEM; empty if none.
std::string client_certificate_pem(const ssl_st* connection);
// Whether the client's certificate, if it showed one, would be taken in a handshake now. Errors: PeerTrust::accepts().
Status check_client_again(const ssl_st* connection, const PeerTrust& clients);

}  // namespace uccp::doors
