// PeerTrust: which certificates of the other end of a connection are accepted: signed by whom, and not revoked.
//
// Made anew whenever one of these changes; connections that are open can be asked again with accepts(). Immutable.
// Thread: callable from any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

struct stack_st_X509;
struct x509_st;
struct x509_store_ctx_st;
struct x509_store_st;

namespace uccp {

struct PeerTrustOptions {
  // Authorities, PEM, at least one.
  std::string ca_pem;
  // Revocation lists of these authorities, PEM, one or more; empty: none. A list whose next update is over goes on to
  // count.
  std::string crl_pem;
  // Whether a certificate, PEM, was revoked by other means. Asked in handshakes, from any thread; may be empty.
  std::function<bool(const std::string& certificate_pem)> revoked;
  // SHA-256 of public keys (SubjectPublicKeyInfo), 32 bytes each: a chain counts only if a certificate in it has one of
  // them (RFC 7469, 2.6). Empty: any.
  std::set<std::string> pins;
};

// "sha256/" and base64, as `openssl ... | openssl dgst -sha256 -binary | base64` gives it, several separated by commas.
// Errors: invalid PIN_INVALID.
Result<std::set<std::string>> parse_pins(std::string_view text);

class PeerTrust {
 public:
  // Errors: invalid PEM_INVALID for what is no PEM, CRL_UNTRUSTED for a list that none of the authorities has signed.
  static Result<std::shared_ptr<const PeerTrust>> make(PeerTrustOptions options);
  ~PeerTrust();

  // For a TLS context, which takes a reference of its own: verifies chain, dates and revocations in each handshake.
  x509_store_st* store() const { return store_; }
  const std::vector<x509_st*>& authorities() const { return authorities_; }
  // What a handshake would say of the certificate now. `chain`: what the peer sent with it; may be null. Errors:
  // unauthenticated CERTIFICATE_REVOKED or CERTIFICATE_UNTRUSTED.
  Status accepts(x509_st* certificate, stack_st_X509* chain) const;
  // When the first of the lists is to be replaced; nothing: there are none.
  std::optional<WallTime> crl_next_update() const { return crl_next_update_; }
  size_t crl_entries() const;

 private:
  struct Revocations;
  PeerTrust() = default;
  Status trust(const std::string& ca_pem);
  Status take_lists(const std::string& crl_pem, Revocations& into);
  static int on_verify(int ok, x509_store_ctx_st* context);

  x509_store_st* store_ = nullptr;
  std::vector<x509_st*> authorities_;
  std::shared_ptr<const Revocations> revocations_;
  std::optional<WallTime> crl_next_update_;
};

}  // namespace uccp
