// An OpenSSL context for the HTTP server. Private to this folder.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"

struct ssl_ctx_st;
struct ssl_st;

namespace uccp::doors {

struct FreeTlsContext {
  void operator()(ssl_ctx_st* context) const;
};
using TlsContextPtr = std::unique_ptr<ssl_ctx_st, FreeTlsContext>;

// TLS 1.3 only, no tickets, ALPN http/1.1; asks for a client certificate if `client_ca_pem` is not empty and verifies
// it if there is one. Errors: invalid PEM_INVALID, failed_precondition KEY_MISMATCH.
Result<TlsContextPtr> make_tls_context(const std::string& certificate_pem, const std::string& key_pem,
                                       const std::string& client_ca_pem);

// The verified certificate that the client showed, PEM; empty if none.
std::string client_certificate_pem(const ssl_st* connection);

}  // namespace uccp::doors
