// TLS 1.3 contexts for servers and clients, and who is at the other end.
//
// Invariants: TLS 1.3 only, no compression, no renegotiation, no resumption (a resumed session would outlive the
// revocation or expiry of the client certificate in it). A certificate that a peer presents is always verified.
// Thread: callable from any thread; a context may be shared by threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/peer_trust.h"
#include "base/status.h"
#include "runtime/pki.h"

struct ssl_ctx_st;
struct ssl_st;

namespace uccp::runtime {

// An SSL_CTX of OpenSSL.
using TlsContext = std::shared_ptr<ssl_ctx_st>;

enum class PeerCertificate : uint8_t {
  kNotAsked,
  kOptional,  // verified if there is one
  kRequired,
};

struct TlsOptions {
  // Shown to the peer. Clients may leave it empty.
  PemIdentity identity;
  // One or more certificates of authorities that the peer's certificate is verified with.
  std::string ca_pem;
  // Servers only; clients always require the server's certificate.
  PeerCertificate client_certificate = PeerCertificate::kOptional;
  // In place of ca_pem, if it is there: with revocations.
  std::shared_ptr<const PeerTrust> trust = nullptr;
};

// Errors: corruption PEM_INVALID, failed_precondition KEY_MISMATCH.
Result<TlsContext> make_server_context(const TlsOptions& options);
Result<TlsContext> make_client_context(const TlsOptions& options);

// Makes the handshake of a client fail unless the server's certificate names `host` (a DNS name or an address), and
// sends the name to the server. Call it before the handshake.
Status expect_server(ssl_st* connection, const std::string& host);

// The verified certificate of the peer after the handshake. Errors: unauthenticated PEER_CERTIFICATE_MISSING.
Result<CertificateInfo> peer_certificate(const ssl_st* connection);

// Whether the peer's certificate would be taken in a handshake now. Errors: those of PeerTrust::accepts().
Status check_peer_again(const ssl_st* connection, const PeerTrust& trust);

// The words of OpenSSL's error queue, which is emptied.
std::string take_openssl_errors();

}  // namespace uccp::runtime
