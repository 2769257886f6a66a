// Who calls, as far as the pipeline established it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace uccp::call {

struct Principal {
  enum class Kind : uint8_t { kAnonymous, kUser, kService, kAgent, kNode };

  Kind kind = Kind::kAnonymous;
  std::string tenant;
  std::string name;
  std::vector<std::string> roles;
  // Groups it is in, of the stored user and of the credential.
  std::vector<std::string> groups;
  // How many of them, from the first on, the credential names; the others are of the stored user.
  size_t credential_groups = 0;
  // Namespaces the credential is good for; empty: all namespaces of the tenant.
  std::vector<std::string> namespaces;
  // What it was recognised by, and the id under which that can be revoked: token id, key id or serial number.
  enum class Credential : uint8_t { kNone, kCertificate, kToken, kApiKey, kOidc };
  Credential credential = Credential::kNone;
  std::string credential_id;
  std::string session;  // the session that an access token belongs to; empty: none
  // Wall time in microseconds after which the credentials are void; 0: never.
  int64_t expires_us = 0;
  // Wall time when they were issued, in microseconds; 0: not said.
  int64_t issued_us = 0;

  // A user, or a program of one: no agent, no node, and not unknown.
  bool is_users() const { return kind == Kind::kUser || kind == Kind::kService; }
};

}  // namespace uccp::call
