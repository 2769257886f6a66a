#include "runtime/pki.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "runtime/openssl_types.h"
#include "runtime/os_random.h"
#include "runtime/tls.h"

namespace uccp::runtime {
namespace {

constexpr int kSerialBytes = 16;
constexpr int64_t kSecondsPerYear = int64_t{365} * 24 * 3600;

std::unexpected<Status> openssl_failed(std::string_view what) {
  return fail(Code::kInternal, "OPENSSL_FAILED", "cannot " + std::string(what) + ": " + take_openssl_errors());
}

std::unexpected<Status> request_invalid(std::string message) {
  return fail(Code::kInvalid, "CERTIFICATE_REQUEST_INVALID", std::move(message));
}

bool set_serial(X509* certificate) {
  std::string bytes = random_bytes(kSerialBytes);
  // Positive and of full length, as RFC 5280 wants it.
  bytes[0] = static_cast<char>((bytes[0] & 0x7f) | 0x40);
  const openssl::BigNumber number(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()), kSerialBytes, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_validity(X509* certificate, WallTime now, int64_t seconds) {
  const time_t from = now.us / 1'000'000 - kBackdatedSeconds;
  const time_t until = now.us / 1'000'000 + seconds;
  return ASN1_TIME_set(X509_getm_notBefore(certificate), from) != nullptr &&
         ASN1_TIME_set(X509_getm_notAfter(certificate), until) != nullptr;
}

bool add_name_entry(X509_NAME* name, const char* field, const std::string& value) {
  return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.data()),
                                    static_cast<int>(value.size()), -1, 0) == 1;
}

bool add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const openssl::Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// Not by X509V3_EXT_conf_nid: its text form would let a comma in a name add further names.
bool add_general_name(GENERAL_NAMES* names, int type, const std::string& value) {
  openssl::GeneralName name(GENERAL_NAME_new());
  if (!name) return false;
  if (type == GEN_IPADD) {
    ASN1_OCTET_STRING* address = a2i_IPADDRESS(value.c_str());
    if (address == nullptr) return false;
    GENERAL_NAME_set0_value(name.get(), type, address);
  } else {
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    if (text == nullptr || ASN1_STRING_set(text, value.data(), static_cast<int>(value.size())) != 1) {
      ASN1_IA5STRING_free(text);
      return false;
    }
    GENERAL_NAME_set0_value(name.get(), type, text);
  }
  if (sk_GENERAL_NAME_push(names, name.get()) == 0) return false;
  (void)name.release();
  return true;
}

Status add_alternative_names(X509* certificate, const CertificateRequest& request) {
  const openssl::GeneralNames names(GENERAL_NAMES_new());
  const auto add_all = [&](int type, const std::vector<std::string>& values) -> Status {
    for (const std::string& value : values) {
      const bool printable = std::ranges::all_of(value, [](char c) { return c > 0x20 && c < 0x7f; });
      if (value.empty() || !printable || !add_general_name(names.get(), type, value)) {
        take_openssl_errors();
        return request_invalid("'" + value + "' is no name or address that a certificate can carry").error();
      }
    }
    return Status::ok();
  };
  UCCP_RETURN_IF_ERROR(add_all(GEN_DNS, request.dns_names));
  UCCP_RETURN_IF_ERROR(add_all(GEN_IPADD, request.ip_addresses));
  UCCP_RETURN_IF_ERROR(add_all(GEN_URI, request.uris));
  if (sk_GENERAL_NAME_num(names.get()) == 0) return Status::ok();
  if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) != 1) {
    return openssl_failed("add alternative names").error();
  }
  return Status::ok();
}

const char* extended_usage(CertificateUse use) {
  switch (use) {
    case CertificateUse::kServer: return "serverAuth";
    case CertificateUse::kClient: return "clientAuth";
    case CertificateUse::kServerAndClient: return "serverAuth,clientAuth";
  }
  std::unreachable();
}

Status verify_chain(X509* certificate, const std::vector<openssl::Certificate>& authorities, WallTime now) {
  const openssl::Store store(X509_STORE_new());
  const openssl::StoreContext context(X509_STORE_CTX_new());
  bool ready = store && context;
  for (const auto& authority : authorities) ready = ready && X509_STORE_add_cert(store.get(), authority.get()) == 1;
  if (!ready || X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr) != 1) {
    return openssl_failed("verify a certificate").error();
  }
  X509_STORE_CTX_set_time(context.get(), 0, now.us / 1'000'000);
  if (X509_verify_cert(context.get()) == 1) return Status::ok();
  const int error = X509_STORE_CTX_get_error(context.get());
  const bool expired = error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID;
  take_openssl_errors();
  return Status(Code::kFailedPrecondition, expired ? "CERTIFICATE_EXPIRED" : "CERTIFICATE_UNTRUSTED",
                std::string("the certificate is not accepted: ") + X509_verify_cert_error_string(error));
}

}  // namespace

std::string principal_uri(std::string_view tenant, std::string_view principal) {
  return "spiffe://uccp/tenant/" + std::string(tenant) + "/principal/" + std::string(principal);
}

std::string node_uri(std::string_view cluster_id, NodeId node) {
  return "spiffe://uccp/cluster/" + std::string(cluster_id) + "/node/" + std::to_string(node.value);
}

Result<PemIdentity> create_ca(const std::string& common_name, int years, WallTime now) {
  if (common_name.empty() || years < 1) return request_invalid("an authority has a name and lives for years");
  const openssl::Key key(EVP_EC_gen("P-256"));
  const openssl::Certificate certificate(X509_new());
  if (!key || !certificate) return openssl_failed("make a key");
  X509* const x = certificate.get();
  X509_NAME* const name = X509_get_subject_name(x);
  if (!add_name_entry(name, "CN", common_name)) return request_invalid("'" + common_name + "' is no common name");
  const bool made =
      X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) && set_validity(x, now, kSecondsPerYear * years) &&
      X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key.get()) == 1 &&
      add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
      add_extension(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") &&
      add_extension(x, x, NID_subject_key_identifier, "hash") && X509_sign(x, key.get(), EVP_sha256()) > 0;
  if (!made) return openssl_failed("make the authority " + common_name);
  return PemIdentity{openssl::certificate_to_pem(x), openssl::private_key_to_pem(key.get())};
}

namespace {

// A certificate of `ca` for a public key.
Result<std::string> certify(const PemIdentity& ca, const CertificateRequest& request, EVP_PKEY* key, WallTime now) {
  if (request.common_name.empty() || request.seconds < 1) {
    return request_invalid("a certificate has a common name and is valid for at least a second");
  }
  UCCP_TRY(const auto authorities, openssl::parse_certificates(ca.certificate_pem));
  UCCP_TRY(const openssl::Key ca_key, openssl::parse_private_key(ca.key_pem));
  X509* const issuer = authorities.front().get();
  if (X509_check_private_key(issuer, ca_key.get()) != 1) {
    take_openssl_errors();
    return fail(Code::kFailedPrecondition, "KEY_MISMATCH", "the authority's key does not belong to its certificate");
  }
  const openssl::Certificate certificate(X509_new());
  if (key == nullptr || !certificate) return openssl_failed("make a key");
  X509* const x = certificate.get();

  bool named = add_name_entry(X509_get_subject_name(x), "CN", request.common_name);
  for (const std::string& organization : request.organizations) {
    named = named && add_name_entry(X509_get_subject_name(x), "O", organization);
  }
  if (!named) {
    take_openssl_errors();
    return request_invalid("'" + request.common_name + "' or an organization is no name of at most 64 characters");
  }
  const bool made = X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) &&
                    set_validity(x, now, request.seconds) &&
                    X509_set_issuer_name(x, X509_get_subject_name(issuer)) == 1 && X509_set_pubkey(x, key) == 1 &&
                    add_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
                    add_extension(x, issuer, NID_key_usage, "critical,digitalSignature") &&
                    add_extension(x, issuer, NID_ext_key_usage, extended_usage(request.use)) &&
                    add_extension(x, issuer, NID_subject_key_identifier, "hash") &&
                    add_extension(x, issuer, NID_authority_key_identifier, "keyid:always");
  if (!made) return openssl_failed("make the certificate of " + request.common_name);
  UCCP_RETURN_IF_ERROR(add_alternative_names(x, request));
  if (X509_sign(x, ca_key.get(), EVP_sha256()) <= 0) return openssl_failed("sign the certificate");
  return openssl::certificate_to_pem(x);
}

using Request = std::unique_ptr<X509_REQ, openssl::Free<X509_REQ_free>>;
using Revoked = std::unique_ptr<X509_REVOKED, openssl::Free<X509_REVOKED_free>>;
using Integer = std::unique_ptr<ASN1_INTEGER, openssl::Free<ASN1_INTEGER_free>>;
using Time = std::unique_ptr<ASN1_TIME, openssl::Free<ASN1_TIME_free>>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

bool add_revoked(X509_CRL* list, const std::string& serial, const ASN1_TIME* when) {
  BIGNUM* number = nullptr;
  BN_hex2bn(&number, serial.c_str());
  const openssl::BigNumber owned(number);
  const Integer integer(number == nullptr ? nullptr : BN_to_ASN1_INTEGER(number, nullptr));
  Revoked entry(X509_REVOKED_new());
  if (!integer || !entry || X509_REVOKED_set_serialNumber(entry.get(), integer.get()) != 1 ||
      X509_REVOKED_set_revocationDate(entry.get(), const_cast<ASN1_TIME*>(when)) != 1 ||
      X509_CRL_add0_revoked(list, entry.get()) != 1) {
    return false;
  }
  (void)entry.release();
  return true;
}

}  // namespace

Result<PemIdentity> issue_certificate(const PemIdentity& ca, const CertificateRequest& request, WallTime now) {
  const openssl::Key key(EVP_EC_gen("P-256"));
  UCCP_TRY(std::string certificate, certify(ca, request, key.get(), now));
  return PemIdentity{std::move(certificate), openssl::private_key_to_pem(key.get())};
}

Result<SigningRequest> make_signing_request() {
  const openssl::Key key(EVP_EC_gen("P-256"));
  const Request request(X509_REQ_new());
  const openssl::Bio bio(BIO_new(BIO_s_mem()));
  if (!key || !request || !bio || X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) <= 0 ||
      PEM_write_bio_X509_REQ(bio.get(), request.get()) != 1) {
    return openssl_failed("make a request for a certificate");
  }
  return SigningRequest{text_of(bio.get()), openssl::private_key_to_pem(key.get())};
}

Result<std::string> sign_request(const PemIdentity& ca, const std::string& request_pem, const CertificateRequest& names,
                                 WallTime now) {
  const openssl::Bio bio(BIO_new_mem_buf(request_pem.data(), static_cast<int>(request_pem.size())));
  const Request request(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
  EVP_PKEY* const key = request ? X509_REQ_get0_pubkey(request.get()) : nullptr;
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1) {
    take_openssl_errors();
    return fail(Code::kInvalid, "SIGNING_REQUEST_INVALID",
                "the request for a certificate is no PEM, or not signed with its key");
  }
  return certify(ca, names, key, now);
}

Result<std::string> make_revocation_list(const PemIdentity& ca, const std::vector<std::string>& serials, WallTime now,
                                         int64_t valid_s) {
  UCCP_TRY(const auto authorities, openssl::parse_certificates(ca.certificate_pem));
  UCCP_TRY(const openssl::Key ca_key, openssl::parse_private_key(ca.key_pem));
  const openssl::RevocationList list(X509_CRL_new());
  const Time from(ASN1_TIME_set(nullptr, now.us / 1'000'000));
  const Time until(ASN1_TIME_set(nullptr, now.us / 1'000'000 + valid_s));
  const openssl::Bio bio(BIO_new(BIO_s_mem()));
  bool made = list && from && until && bio && X509_CRL_set_version(list.get(), X509_CRL_VERSION_2) == 1 &&
              X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(authorities.front().get())) == 1 &&
              X509_CRL_set1_lastUpdate(list.get(), from.get()) == 1 &&
              X509_CRL_set1_nextUpdate(list.get(), until.get()) == 1;
  for (const std::string& serial : serials) made = made && add_revoked(list.get(), serial, from.get());
  made = made && X509_CRL_sort(list.get()) == 1 && X509_CRL_sign(list.get(), ca_key.get(), EVP_sha256()) > 0 &&
         PEM_write_bio_X509_CRL(bio.get(), list.get()) == 1;
  if (!made) return openssl_failed("make a revocation list");
  return text_of(bio.get());
}

std::vector<std::string> split_pem(const std::string& pem) {
  constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  std::vector<std::string> out;
  for (size_t at = 0;;) {
    const size_t begin = pem.find("-----BEGIN CERTIFICATE-----", at);
    const size_t end = begin == std::string::npos ? begin : pem.find(kEnd, begin);
    if (end == std::string::npos) return out;
    at = end + kEnd.size();
    out.push_back(pem.substr(begin, at - begin) + "\n");
  }
}

Result<CertificateInfo> inspect_certificate(std::string_view pem) {
  UCCP_TRY(const auto certificates, openssl::parse_certificates(pem));
  return openssl::describe(certificates.front().get());
}

Status check_identity(const PemIdentity& identity, std::string_view ca_pem, WallTime now) {
  UCCP_TRY(const auto certificates, openssl::parse_certificates(identity.certificate_pem));
  UCCP_TRY(const openssl::Key key, openssl::parse_private_key(identity.key_pem));
  UCCP_TRY(const auto authorities, openssl::parse_certificates(ca_pem));
  X509* const certificate = certificates.front().get();
  if (X509_check_private_key(certificate, key.get()) != 1) {
    take_openssl_errors();
    return Status(Code::kFailedPrecondition, "KEY_MISMATCH", "the private key does not belong to the certificate");
  }
  return verify_chain(certificate, authorities, now);
}

}  // namespace uccp::runtime
