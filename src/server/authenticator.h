// Principals from client certificates and access tokens, with the keys of this node.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "call/pipeline/authenticator.h"
#include "runtime/jwt.h"

namespace uccp::server {

inline constexpr std::string_view kTokenIssuer = "uccp";
inline constexpr std::string_view kTokenAudience = "uccp";

class KeyAuthenticator final : public call::Authenticator {
 public:
  // `verifier` knows the keys of the issuers that are trusted. Certificates of nodes are accepted from this cluster.
  KeyAuthenticator(runtime::TokenVerifier verifier, const Clock& clock, std::string cluster_id)
      : verifier_(std::move(verifier)), clock_(clock), cluster_id_(std::move(cluster_id)) {}

  Result<call::Principal> authenticate(const call::Credentials& credentials) override;
  uint64_t revision() const override { return 1; }

 private:
  Result<call::Principal> from_token(const std::string& token) const;
  Result<call::Principal> from_certificate(const std::string& pem) const;

  runtime::TokenVerifier verifier_;
  const Clock& clock_;
  const std::string cluster_id_;
};

// Reads "spiffe://uccp/cluster/<cluster>/node/<number>". False if the URI is none.
bool parse_node_uri(std::string_view uri, std::string& cluster_id, NodeId& node);

}  // namespace uccp::server
