#include "base/peer_trust.h"

#include <openssl/err.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/hash.h"
#include "base/openssl_owners.h"

namespace uccp {
namespace {

Status pem_error(std::string what) {
  ERR_clear_error();
  return Status(Code::kInvalid, "PEM_INVALID", std::move(what));
}

// True when the reader stopped for want of further blocks, not at a damaged one.
bool at_end_of_pem() {
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  return error == 0 || ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

std::string der_of(const X509_NAME* name) {
  unsigned char* out = nullptr;
  const int size = i2d_X509_NAME(name, &out);
  std::string der(reinterpret_cast<char*>(out), size > 0 ? static_cast<size_t>(size) : 0);
  OPENSSL_free(out);
  return der;
}

std::string bytes_of(const ASN1_INTEGER* number) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(number)),
          static_cast<size_t>(ASN1_STRING_length(number))};
}

bool has_pinned(STACK_OF(X509) * chain, const std::set<std::string>& pins) {
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    unsigned char* out = nullptr;
    const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(sk_X509_value(chain, i)), &out);
    const std::string key(reinterpret_cast<char*>(out), size > 0 ? static_cast<size_t>(size) : 0);
    OPENSSL_free(out);
    if (pins.contains(sha256(key))) return true;
  }
  return false;
}

void free_extra(void*, void* extra, CRYPTO_EX_DATA*, int, long, void*) {
  delete static_cast<std::shared_ptr<const void>*>(extra);
}

// Where a store keeps its revocations: it may live longer than the trust, in contexts and connections.
int store_index() {
  static const int kIndex =
      CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_X509_STORE, 0, nullptr, nullptr, nullptr, free_extra);
  return kIndex;
}

}  // namespace

struct PeerTrust::Revocations {
  std::set<std::pair<std::string, std::string>> listed;  // (issuer, serial number)
  std::function<bool(const std::string&)> revoked;
  std::set<std::string> pins;
};

int PeerTrust::on_verify(int ok, X509_STORE_CTX* context) {
  if (ok != 1) return ok;
  X509* const certificate = X509_STORE_CTX_get_current_cert(context);
  const auto* extra = static_cast<std::shared_ptr<const void>*>(
      X509_STORE_get_ex_data(X509_STORE_CTX_get0_store(context), store_index()));
  if (certificate == nullptr || extra == nullptr) return ok;
  const auto& revocations = *static_cast<const Revocations*>(extra->get());
  const auto key = [&] {
    return std::pair(der_of(X509_get_issuer_name(certificate)), bytes_of(X509_get0_serialNumber(certificate)));
  };
  bool gone = !revocations.listed.empty() && revocations.listed.contains(key());
  const bool is_leaf = X509_STORE_CTX_get_error_depth(context) == 0;
  // The leaf comes last: the chain is whole then.
  if (is_leaf && !revocations.pins.empty() && !has_pinned(X509_STORE_CTX_get0_chain(context), revocations.pins)) {
    X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_UNTRUSTED);
    return 0;
  }
  if (!gone && is_leaf && revocations.revoked) gone = revocations.revoked(openssl::certificate_to_pem(certificate));
  if (!gone) return 1;
  X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_REVOKED);
  return 0;
}

Status PeerTrust::trust(const std::string& ca_pem) {
  const openssl::Bio bio = openssl::reader_of(ca_pem);
  while (true) {
    openssl::Certificate authority(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!authority) break;
    if (X509_STORE_add_cert(store_, authority.get()) != 1)
      return pem_error("an authority's certificate cannot be used");
    authorities_.push_back(authority.release());
  }
  if (!at_end_of_pem() || authorities_.empty()) {
    return pem_error("the authorities of the other end's certificates are not PEM that OpenSSL can use");
  }
  return Status::ok();
}

Status PeerTrust::take_lists(const std::string& crl_pem, Revocations& into) {
  const openssl::Bio bio = openssl::reader_of(crl_pem);
  size_t count = 0;
  while (true) {
    const openssl::RevocationList list(PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr));
    if (!list) break;
    const std::string issuer = der_of(X509_CRL_get_issuer(list.get()));
    bool signed_by_us = false;
    for (X509* authority : authorities_) {
      signed_by_us = signed_by_us || (der_of(X509_get_subject_name(authority)) == issuer &&
                                      X509_CRL_verify(list.get(), X509_get0_pubkey(authority)) == 1);
    }
    if (!signed_by_us) {
      ERR_clear_error();
      return Status(Code::kInvalid, "CRL_UNTRUSTED",
                    "a certificate revocation list was signed by none of the authorities that are trusted; "
                    "name the list and the authorities that belong together");
    }
    const STACK_OF(X509_REVOKED)* entries = X509_CRL_get_REVOKED(list.get());
    for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
      into.listed.emplace(issuer, bytes_of(X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(entries, i))));
    }
    std::tm next{};
    if (const ASN1_TIME* update = X509_CRL_get0_nextUpdate(list.get());
        update != nullptr && ASN1_TIME_to_tm(update, &next) == 1) {
      const WallTime at{static_cast<int64_t>(timegm(&next)) * 1'000'000};
      if (!crl_next_update_ || at.us < crl_next_update_->us) crl_next_update_ = at;
    }
    ++count;
  }
  if (!at_end_of_pem() || count == 0)
    return pem_error("the certificate revocation list is not PEM that OpenSSL can use");
  return Status::ok();
}

Result<std::shared_ptr<const PeerTrust>> PeerTrust::make(PeerTrustOptions options) {
  ERR_clear_error();
  const std::shared_ptr<PeerTrust> made(new PeerTrust());
  made->store_ = X509_STORE_new();
  UCCP_RETURN_IF_ERROR(made->trust(options.ca_pem));
  auto revocations = std::make_shared<Revocations>();
  revocations->revoked = std::move(options.revoked);
  revocations->pins = std::move(options.pins);
  if (!options.crl_pem.empty()) UCCP_RETURN_IF_ERROR(made->take_lists(options.crl_pem, *revocations));
  made->revocations_ = revocations;
  X509_STORE_set_ex_data(made->store_, store_index(), new std::shared_ptr<const void>(revocations));
  X509_STORE_set_verify_cb(made->store_, on_verify);
  return std::shared_ptr<const PeerTrust>(made);
}

Result<std::set<std::string>> parse_pins(std::string_view text) {
  constexpr std::string_view kPrefix = "sha256/";
  constexpr size_t kDigestBytes = 32;
  std::set<std::string> pins;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view pin = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    while (pin.starts_with(' ')) pin.remove_prefix(1);
    while (pin.ends_with(' ')) pin.remove_suffix(1);
    std::string bytes(64, '\0');
    const bool has_form =
        pin.starts_with(kPrefix) && pin.size() == kPrefix.size() + 44 && pin.ends_with('=') && !pin.ends_with("==");
    const int size = has_form ? EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                                reinterpret_cast<const unsigned char*>(pin.data() + kPrefix.size()), 44)
                              : -1;
    if (size < static_cast<int>(kDigestBytes)) {
      return fail(Code::kInvalid, "PIN_INVALID",
                  "'" + std::string(pin.substr(0, 80)) +
                      "' is not the pin of a public key: sha256/ and 44 characters of base64");
    }
    pins.insert(bytes.substr(0, kDigestBytes));
  }
  return pins;
}

PeerTrust::~PeerTrust() {
  for (X509* authority : authorities_) X509_free(authority);
  X509_STORE_free(store_);
}

size_t PeerTrust::crl_entries() const { return revocations_->listed.size(); }

Status PeerTrust::accepts(X509* certificate, STACK_OF(X509) * chain) const {
  const openssl::StoreContext context(X509_STORE_CTX_new());
  if (context && X509_STORE_CTX_init(context.get(), store_, certificate, chain) == 1 &&
      X509_verify_cert(context.get()) == 1) {
    return Status::ok();
  }
  const int error = context ? X509_STORE_CTX_get_error(context.get()) : X509_V_ERR_OUT_OF_MEM;
  ERR_clear_error();
  return Status(Code::kUnauthenticated,
                error == X509_V_ERR_CERT_REVOKED ? "CERTIFICATE_REVOKED" : "CERTIFICATE_UNTRUSTED",
                std::string("the certificate of this connection is not accepted any more: ") +
                    X509_verify_cert_error_string(error));
}

}  // namespace uccp
