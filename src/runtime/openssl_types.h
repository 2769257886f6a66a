// The PEM conversions that pki, tls and jwt share. Included by .cc files only.
#pragma once

#include <openssl/ssl.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/openssl_owners.h"
#include "base/status.h"
#include "runtime/pki.h"

namespace uccp::runtime::openssl {

using namespace uccp::openssl;

// Empty if OpenSSL is out of memory.
std::string private_key_to_pem(EVP_PKEY* key);
std::string public_key_to_pem(EVP_PKEY* key);

// Errors of all three: corruption PEM_INVALID. Encrypted keys are not asked a password for, they are errors.
Result<Key> parse_private_key(std::string_view pem);
Result<Key> parse_public_key(std::string_view pem);
// All certificates in `pem`, at least one.
Result<std::vector<Certificate>> parse_certificates(std::string_view pem);

Result<CertificateInfo> describe(const X509* certificate);

}  // namespace uccp::runtime::openssl
