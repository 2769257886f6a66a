#include "doors/net/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/openssl_owners.h"

namespace uccp::doors {
namespace {

using openssl::Certificate;

Status pem_error(std::string_view what) {
  ERR_clear_error();
  return Status(Code::kInvalid, "PEM_INVALID", std::string(what) + " is not PEM that OpenSSL can use");
}

Status use_certificates(SSL_CTX* context, const std::string& pem) {
  const openssl::Bio bio = openssl::reader_of(pem);
  const Certificate leaf(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (leaf == nullptr || SSL_CTX_use_certificate(context, leaf.get()) != 1)
    return pem_error("the server's certificate");
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    SSL_CTX_add0_chain_cert(context, next);
  }
  ERR_clear_error();
  return Status::ok();
}

void trust(SSL_CTX* context, const PeerTrust& clients) {
  SSL_CTX_set1_cert_store(context, clients.store());
  for (X509* authority : clients.authorities()) SSL_CTX_add_client_CA(context, authority);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
}

constexpr unsigned char kHttp11[] = "\x08http/1.1";
constexpr unsigned char kHttp2[] = "\x02h2";

int select_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned in_size,
                    void* protocol) {
  const bool h2 = protocol == kHttp2;
  unsigned char* chosen = nullptr;
  const int found = SSL_select_next_proto(&chosen, out_size, static_cast<const unsigned char*>(protocol),
                                          h2 ? sizeof kHttp2 - 1 : sizeof kHttp11 - 1, in, in_size);
  if (found != OPENSSL_NPN_NEGOTIATED) return h2 ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

void FreeTlsContext::operator()(ssl_ctx_st* context) const { SSL_CTX_free(context); }

Result<DoorCertificates> door_certificates(const std::string& certificate_pem, const std::string& key_pem,
                                           const std::string& client_ca_pem) {
  DoorCertificates out{.certificate_pem = certificate_pem, .key_pem = key_pem, .clients = nullptr};
  if (!client_ca_pem.empty()) {
    UCCP_TRY(out.clients, PeerTrust::make({.ca_pem = client_ca_pem}));
  }
  return out;
}

Result<TlsContextPtr> make_tls_context(const DoorCertificates& certificates, TlsProtocol protocol) {
  TlsContextPtr context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  // A resumed session would outlive the expiry and revocation of the client certificate in it.
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  // An idle connection keeps no 34 KiB of buffers.
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(context.get(), select_protocol,
                             const_cast<unsigned char*>(protocol == TlsProtocol::kHttp2 ? kHttp2 : kHttp11));
  UCCP_RETURN_IF_ERROR(use_certificates(context.get(), certificates.certificate_pem));
  const openssl::Key key = openssl::private_key_of(certificates.key_pem);
  if (key == nullptr) return fail(pem_error("the server's key"));
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1 || SSL_CTX_check_private_key(context.get()) != 1) {
    ERR_clear_error();
    return fail(Code::kFailedPrecondition, "KEY_MISMATCH", "the server's key does not belong to its certificate");
  }
  if (certificates.clients) trust(context.get(), *certificates.clients);
  return context;
}

std::string client_certificate_pem(const ssl_st* connection) {
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  if (certificate == nullptr || SSL_get_verify_result(connection) != X509_V_OK) return {};
  return openssl::certificate_to_pem(certificate.get());
}

Status check_client_again(const ssl_st* connection, const PeerTrust& clients) {
  const Certificate certificate(SSL_get1_peer_certificate(connection));
  if (certificate == nullptr) return Status::ok();
  return clients.accepts(certificate.get(), SSL_get_peer_cert_chain(connection));
}

}  // namespace uccp::doors
