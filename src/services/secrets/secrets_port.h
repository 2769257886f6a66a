// A store of secrets, wherever it keeps them. Callable from any thread; must outlive every call.
//
// A store never gives a value to anybody but the callback of access(), and names none in an error.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"
#include "call/call.h"
#include "uccp/v1/secrets.pb.h"

namespace uccp::secrets {

class SecretStore {
 public:
  template <typename Answer>
  using Done = std::move_only_function<void(Result<Answer>)>;

  virtual ~SecretStore() = default;
  // `bytes` is the request as it was validated. Callbacks come once, on any thread. Errors: as the contract says.
  virtual void put(const call::CallPtr& call, std::string bytes, Done<v1::Secret> done) = 0;
  virtual void get(const call::CallPtr& call, const std::string& name, Done<v1::Secret> done) = 0;
  // Answers a serialized SecretValue. The access is on record before the value is read.
  virtual void access(const call::CallPtr& call, std::string bytes, Done<std::string> done) = 0;
  // Answers a serialized ListSecretsResponse.
  virtual void list(const call::CallPtr& call, std::string bytes, Done<std::string> done) = 0;
  virtual void remove(const call::CallPtr& call, std::string bytes, Done<v1::DeleteSecretResponse> done) = 0;
  virtual void rotate_keys(const call::CallPtr& call, std::string bytes, Done<v1::RotateSecretKeysResponse> done) = 0;
};

}  // namespace uccp::secrets
