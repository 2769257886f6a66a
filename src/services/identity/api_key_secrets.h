// How secrets of API keys are stored, and how one is told from another: by Argon2id, and what was right is remembered.
//
// A secret is 32 random bytes, so it is not the price of the hash that keeps it from being guessed. Therefore that
// price is low enough to be paid by whoever authenticates, about a millisecond for a key that is met for the first time
// or is wrong, and nobody who sends wrong ones holds others up. What was right is remembered as an HMAC under a key
// that this process drew at its start: it says nothing about the secret to who reads the memory of another process, or
// a file.
//
// Callable from any thread.
#pragma once

#include <mutex>
#include <set>
#include <string>

#include "base/status.h"
#include "services/identity/identity_ports.h"

namespace uccp::identity {

class ApiKeySecrets {
 public:
  // Beyond it all are forgotten and checked again.
  static constexpr size_t kRememberedMax = 10'000;

  // `crypto` must outlive it.
  explicit ApiKeySecrets(IdentityCrypto& crypto);

  // What is stored of a secret: Argon2id in its text form. Clusters below `kAdministrationLevel` have nodes that know
  // only SHA-256. Errors: internal PASSWORD_HASH_FAILED.
  Result<std::string> stored(const std::string& secret, uint32_t feature_level);
  // Whether `stored` was made of `secret`; also of what older versions stored, which is SHA-256.
  bool is_right(const std::string& stored, const std::string& secret);

 private:
  IdentityCrypto& crypto_;
  const std::string process_key_;
  std::mutex mutex_;  // of what follows
  std::set<std::string> right_;
};

}  // namespace uccp::identity
