#include "runtime/openssl_types.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <string.h>

#include <array>
#include <utility>

#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/tls.h"

namespace uccp::runtime {

std::string take_openssl_errors() {
  std::string out;
  while (const unsigned long code = ERR_get_error()) {
    std::array<char, 256> text{};
    ERR_error_string_n(code, text.data(), text.size());
    if (!out.empty()) out += "; ";
    out += text.data();
  }
  return out.empty() ? "no details" : out;
}

namespace openssl {
namespace {

std::unexpected<Status> pem_invalid(std::string_view what) {
  return fail(Code::kCorruption, "PEM_INVALID",
              "cannot read a " + std::string(what) + " from PEM: " + take_openssl_errors());
}

std::string to_text(const ASN1_STRING* text) {
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, text);
  if (size < 0) return {};
  std::string out(reinterpret_cast<char*>(utf8), static_cast<size_t>(size));
  OPENSSL_free(utf8);
  return out;
}

std::vector<std::string> name_entries(const X509_NAME* name, int nid) {
  std::vector<std::string> out;
  for (int at = X509_NAME_get_index_by_NID(name, nid, -1); at >= 0; at = X509_NAME_get_index_by_NID(name, nid, at)) {
    out.push_back(to_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at))));
  }
  return out;
}

WallTime to_wall_time(const ASN1_TIME* time) {
  tm fields{};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return {};
  return {static_cast<int64_t>(timegm(&fields)) * 1'000'000};
}

void add_alternative_names(const X509* certificate, CertificateInfo& info) {
  const GeneralNames names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (!names) return;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const auto* value =
        static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type));
    if (type == GEN_URI) info.uris.push_back(to_text(value));
    if (type == GEN_DNS) info.dns_names.push_back(to_text(value));
    if (type == GEN_IPADD) {
      const int family = ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6;
      std::array<char, INET6_ADDRSTRLEN> text{};
      if (ASN1_STRING_length(value) != 4 && ASN1_STRING_length(value) != 16) continue;
      inet_ntop(family, ASN1_STRING_get0_data(value), text.data(), text.size());
      info.ip_addresses.emplace_back(text.data());
    }
  }
}

}  // namespace

std::string private_key_to_pem(EVP_PKEY* key) {
  return text_of(
      [&](BIO* bio) { return PEM_write_bio_PKCS8PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

std::string public_key_to_pem(EVP_PKEY* key) {
  return text_of([&](BIO* bio) { return PEM_write_bio_PUBKEY(bio, key); });
}

Result<Key> parse_private_key(std::string_view pem) {
  Key key = private_key_of(pem);
  if (!key) return pem_invalid("private key");
  return key;
}

Result<Key> parse_public_key(std::string_view pem) {
  const Bio bio = reader_of(pem);
  Key key(bio ? PEM_read_bio_PUBKEY(bio.get(), nullptr, no_password, nullptr) : nullptr);
  if (!key) return pem_invalid("public key");
  return key;
}

Result<std::vector<Certificate>> parse_certificates(std::string_view pem) {
  const Bio bio = reader_of(pem);
  std::vector<Certificate> certificates;
  while (bio) {
    Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
    if (!certificate) break;
    certificates.push_back(std::move(certificate));
  }
  // The reader ends every input with "no start line"; any other error is damage behind the last good certificate.
  const unsigned long error = ERR_peek_last_error();
  const bool clean_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (certificates.empty() || !clean_end) return pem_invalid("certificate");
  ERR_clear_error();
  return certificates;
}

Result<CertificateInfo> describe(const X509* certificate) {
  CertificateInfo info;
  unsigned char* der = nullptr;
  const int der_size = i2d_X509(certificate, &der);
  if (der_size < 0) return pem_invalid("certificate");
  info.fingerprint = to_hex(sha256({reinterpret_cast<char*>(der), static_cast<size_t>(der_size)}));
  OPENSSL_free(der);

  const X509_NAME* subject = X509_get_subject_name(certificate);
  std::vector<std::string> common_names = name_entries(subject, NID_commonName);
  // The last one is the most specific, and the one that OpenSSL's own host check takes.
  if (!common_names.empty()) info.common_name = std::move(common_names.back());
  info.organizations = name_entries(subject, NID_organizationName);
  info.not_before = to_wall_time(X509_get0_notBefore(certificate));
  info.not_after = to_wall_time(X509_get0_notAfter(certificate));
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate);
  info.serial = to_hex(
      {reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)), static_cast<size_t>(ASN1_STRING_length(serial))});
  info.is_authority = X509_check_ca(const_cast<X509*>(certificate)) == 1;
  add_alternative_names(certificate, info);
  return info;
}

}  // namespace openssl
}  // namespace uccp::runtime
