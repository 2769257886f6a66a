// Wraps all data keys by the wrapping key in force, then drops the wrapping keys before. Re-runnable: what is wrapped
// already stays, and what fails is left as it was.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "machine/ports.h"
#include "services/secrets/secret_seals.h"
#include "services/secrets/secrets_port.h"
#include "services/secrets/secrets_state.h"

namespace uccp::secrets {

// Everything must outlive the rotation, which ends with its call.
struct RotationEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  Executor& work;
  const SecretSeals& seals;
};

class KeyRotation : public std::enable_shared_from_this<KeyRotation> {
 public:
  using Done = SecretStore::Done<v1::RotateSecretKeysResponse>;
  // `key_id` was made the key in force at `index`.
  static void run(RotationEnvironment environment, const call::CallPtr& call, std::string key_id, LogIndex index,
                  Done done);

 private:
  struct Secret {
    machine::Scope scope;
    std::string name;
  };

  KeyRotation(RotationEnvironment environment, call::CallPtr call, Done done)
      : env_(environment), call_(std::move(call)), done_(std::move(done)) {}
  void collect(machine::GroupView view);
  void next();
  Result<std::string> rewrapped(const machine::GroupView& view, const Secret& secret) const;
  void drop_keys();
  void finish(Status status);

  const RotationEnvironment env_;
  const call::CallPtr call_;
  Done done_;
  std::string key_id_;
  std::vector<Secret> left_;          // with data keys that another key wraps
  std::vector<std::string> retired_;  // wrapping keys before
  uint64_t count_ = 0;
};

}  // namespace uccp::secrets
