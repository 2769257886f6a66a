// Certificates, keys and requests of strangers: they are read, or refused.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "runtime/pki.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  static const runtime::PemIdentity ca = *runtime::create_ca("fuzz", 1, WallTime{1'700'000'000'000'000});
  const std::string pem(reinterpret_cast<const char*>(data), size);
  for (const std::string& one : runtime::split_pem(pem)) (void)runtime::inspect_certificate(one);
  if (const auto info = runtime::inspect_certificate(pem)) {
    UCCP_CHECK(info->fingerprint.size() == 64, "a certificate has a fingerprint");
  }
  (void)runtime::check_identity({pem, pem}, ca.certificate_pem, WallTime{1'700'000'000'000'000});
  (void)runtime::check_identity({ca.certificate_pem, ca.key_pem}, pem, WallTime{1'700'000'000'000'000});
  if (const auto made = runtime::sign_request(ca, pem, {.common_name = "x"}, WallTime{1'700'000'000'000'000})) {
    // Names come from who signs, whatever the request says.
    const auto info = runtime::inspect_certificate(*made);
    UCCP_CHECK(info && info->common_name == "x" && info->uris.empty() && !info->is_authority,
               "a request chooses nothing");
  }
  return 0;
}
