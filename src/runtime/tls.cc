#include "runtime/tls.h"

#include <openssl/ssl.h>

#include "runtime/openssl_types.h"

namespace uccp::runtime {
namespace {

std::unexpected<Status> tls_failed(std::string_view what) {
  return fail(Code::kInternal, "OPENSSL_FAILED", "cannot " + std::string(what) + ": " + take_openssl_errors());
}

Status use_identity(SSL_CTX* context, const PemIdentity& identity) {
  UCCP_TRY(const auto certificates, openssl::parse_certificates(identity.certificate_pem));
  UCCP_TRY(const openssl::Key key, openssl::parse_private_key(identity.key_pem));
  if (X509_check_private_key(certificates.front().get(), key.get()) != 1) {
    take_openssl_errors();
    return Status(Code::kFailedPrecondition, "KEY_MISMATCH", "the private key does not belong to the certificate");
  }
  bool used = SSL_CTX_use_certificate(context, certificates.front().get()) == 1 &&
              SSL_CTX_use_PrivateKey(context, key.get()) == 1;
  for (size_t i = 1; i < certificates.size(); ++i) {
    used = used && SSL_CTX_add1_chain_cert(context, certificates[i].get()) == 1;
  }
  if (!used) return tls_failed("use a certificate").error();
  return Status::ok();
}

Status trust(SSL_CTX* context, const TlsOptions& options, bool name_to_clients) {
  if (options.trust) {
    SSL_CTX_set1_cert_store(context, options.trust->store());
    for (X509* authority : options.trust->authorities()) {
      if (name_to_clients && SSL_CTX_add_client_CA(context, authority) != 1)
        return tls_failed("trust an authority").error();
    }
    return Status::ok();
  }
  const std::string& ca_pem = options.ca_pem;
  UCCP_TRY(const auto authorities, openssl::parse_certificates(ca_pem));
  for (const auto& authority : authorities) {
    bool added = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.get()) == 1;
    if (name_to_clients) added = added && SSL_CTX_add_client_CA(context, authority.get()) == 1;
    if (!added) return tls_failed("trust an authority").error();
  }
  return Status::ok();
}

Result<TlsContext> make_context(const SSL_METHOD* method) {
  TlsContext context(SSL_CTX_new(method), SSL_CTX_free);
  if (!context) return tls_failed("make a TLS context");
  if (SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1) return tls_failed("require TLS 1.3");
  SSL_CTX_set_options(context.get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  // Asio and Beast retry writes from buffers that may have moved; idle connections give their buffers back.
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  return context;
}

}  // namespace

Result<TlsContext> make_server_context(const TlsOptions& options) {
  UCCP_TRY(TlsContext context, make_context(TLS_server_method()));
  UCCP_RETURN_IF_ERROR(use_identity(context.get(), options.identity));
  if (options.client_certificate == PeerCertificate::kNotAsked) return context;
  UCCP_RETURN_IF_ERROR(trust(context.get(), options, true));
  const bool required = options.client_certificate == PeerCertificate::kRequired;
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  return context;
}

Result<TlsContext> make_client_context(const TlsOptions& options) {
  UCCP_TRY(TlsContext context, make_context(TLS_client_method()));
  if (!options.identity.certificate_pem.empty()) UCCP_RETURN_IF_ERROR(use_identity(context.get(), options.identity));
  UCCP_RETURN_IF_ERROR(trust(context.get(), options, false));
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  return context;
}

Status expect_server(ssl_st* connection, const std::string& host) {
  X509_VERIFY_PARAM* const wanted = SSL_get0_param(connection);
  // An address is compared with addresses only, and is not sent as a server name (RFC 6066).
  if (X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) == 1) return Status::ok();
  take_openssl_errors();
  if (SSL_set1_host(connection, host.c_str()) != 1 || SSL_set_tlsext_host_name(connection, host.c_str()) != 1) {
    take_openssl_errors();
    return Status(Code::kInvalid, "HOST_INVALID", "'" + host + "' is no host name or address");
  }
  return Status::ok();
}

Result<CertificateInfo> peer_certificate(const ssl_st* connection) {
  const openssl::Certificate certificate(SSL_get1_peer_certificate(connection));
  if (!certificate || SSL_get_verify_result(connection) != X509_V_OK) {
    return fail(Code::kUnauthenticated, "PEER_CERTIFICATE_MISSING",
                "the peer has shown no certificate that is accepted");
  }
  return openssl::describe(certificate.get());
}

Status check_peer_again(const ssl_st* connection, const PeerTrust& trust) {
  const openssl::Certificate certificate(SSL_get1_peer_certificate(connection));
  if (!certificate)
    return Status(Code::kUnauthenticated, "PEER_CERTIFICATE_MISSING", "the peer has shown no certificate");
  return trust.accepts(certificate.get(), SSL_get_peer_cert_chain(connection));
}

}  // namespace uccp::runtime
