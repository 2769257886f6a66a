// The store of secrets in the replicated state. Callable from any thread; must outlive every call.
#pragma once

#include <functional>
#include <string>

#include "base/clock.h"
#include "base/executor.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/secrets/secret_seals.h"
#include "services/secrets/secrets_port.h"
#include "services/secrets/secrets_state.h"

namespace uccp::secrets {

struct SecretOptions {
  uint32_t versions_max = 10;     // kept of a secret
  uint64_t secrets_max = 10'000;  // in a namespace
};

// Everything must outlive the store.
struct SecretsEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  Executor& work;  // lists and rotations
  const Clock& clock;
  const call::PageTokenSigner& page_tokens;
  std::function<uint32_t()> feature_level;  // of the cluster
};

class EmbeddedSecretStore final : public SecretStore {
 public:
  EmbeddedSecretStore(SecretOptions options, SecretSeals seals, SecretsEnvironment environment)
      : options_(options), seals_(std::move(seals)), env_(std::move(environment)) {}

  void put(const call::CallPtr& call, std::string bytes, Done<v1::Secret> done) override;
  void get(const call::CallPtr& call, const std::string& name, Done<v1::Secret> done) override;
  void access(const call::CallPtr& call, std::string bytes, Done<std::string> done) override;
  void list(const call::CallPtr& call, std::string bytes, Done<std::string> done) override;
  void remove(const call::CallPtr& call, std::string bytes, Done<v1::DeleteSecretResponse> done) override;
  void rotate_keys(const call::CallPtr& call, std::string bytes, Done<v1::RotateSecretKeysResponse> done) override;

 private:
  struct Put;

  void put_with_key(std::shared_ptr<Put> put);
  Result<machine::Envelope> sealed_put(const Put& put, const machine::GroupView& view) const;

  const SecretOptions options_;
  const SecretSeals seals_;
  const SecretsEnvironment env_;
};

}  // namespace uccp::secrets
