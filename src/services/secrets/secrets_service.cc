#include "services/secrets/secrets_service.h"

#include <utility>

namespace uccp::secrets {
namespace {

using call::CallPtr;

std::string method_name(std::string_view rpc) { return "uccp.v1.Secrets/" + std::string(rpc); }

template <typename Answer>
SecretStore::Done<Answer> reply_to(const CallPtr& call) {
  return [call](Result<Answer> answer) {
    if (!answer) return call->finish(std::move(answer.error()));
    call->reply(answer->SerializeAsString());
  };
}

SecretStore::Done<std::string> reply_bytes_to(const CallPtr& call) {
  return [call](Result<std::string> answer) {
    if (!answer) return call->finish(std::move(answer.error()));
    call->reply(std::move(*answer));
  };
}

}  // namespace

void SecretsService::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("PutSecret"), [this](const CallPtr& call, std::string bytes) {
    store_.put(call, std::move(bytes), reply_to<v1::Secret>(call));
  });
  handlers.add_parsed<v1::GetSecretRequest>(method_name("GetSecret"), [this](const CallPtr& call, const auto& request) {
    store_.get(call, request.name(), reply_to<v1::Secret>(call));
  });
  handlers.add(method_name("AccessSecret"), [this](const CallPtr& call, std::string bytes) {
    store_.access(call, std::move(bytes), reply_bytes_to(call));
  });
  handlers.add(method_name("ListSecrets"), [this](const CallPtr& call, std::string bytes) {
    store_.list(call, std::move(bytes), reply_bytes_to(call));
  });
  handlers.add(method_name("DeleteSecret"), [this](const CallPtr& call, std::string bytes) {
    store_.remove(call, std::move(bytes), reply_to<v1::DeleteSecretResponse>(call));
  });
  handlers.add(method_name("RotateSecretKeys"), [this](const CallPtr& call, std::string bytes) {
    store_.rotate_keys(call, std::move(bytes), reply_to<v1::RotateSecretKeysResponse>(call));
  });
}

}  // namespace uccp::secrets
