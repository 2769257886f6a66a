// Owners for OpenSSL objects and the PEM conversions that pki, tls and jwt share. Included by .cc files only.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/pki.h"

namespace uccp::runtime::openssl {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;
using GeneralName = std::unique_ptr<GENERAL_NAME, Free<GENERAL_NAME_free>>;
using GeneralNames = std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES_free>>;
using BigNumber = std::unique_ptr<BIGNUM, Free<BN_free>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;

// Empty if OpenSSL is out of memory, as all makers below.
std::string private_key_to_pem(EVP_PKEY* key);
std::string public_key_to_pem(EVP_PKEY* key);
std::string certificate_to_pem(X509* certificate);

// Errors of all three: corruption PEM_INVALID. Encrypted keys are not asked a password for, they are errors.
Result<Key> parse_private_key(std::string_view pem);
Result<Key> parse_public_key(std::string_view pem);
// All certificates in `pem`, at least one.
Result<std::vector<Certificate>> parse_certificates(std::string_view pem);

Result<CertificateInfo> describe(const X509* certificate);

}  // namespace uccp::runtime::openssl
