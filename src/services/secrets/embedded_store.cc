#include "services/secrets/embedded_store.h"

#include <memory>
#include <utility>

#include "call/command.h"
#include "machine/read_level.h"
#include "services/coordination_types.h"
#include "services/feature_types.h"
#include "services/message_types.h"
#include "services/secrets/key_rotation.h"

namespace uccp::secrets {
namespace {

using call::CallPtr;
using coordination::scope_of;
using machine::Applied;
using machine::GroupView;
using machine::ReadLevel;
using services::parse;

// A rotation may come between sealing and committing; several in a row do not.
constexpr int kTriesMax = 5;

std::string command_name(std::string_view verb) { return std::string(kDomain) + "." + std::string(verb); }

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kCoreGroup, index}}));
}

}  // namespace

struct EmbeddedSecretStore::Put {
  CallPtr call;
  std::string bytes;  // has the value, like the request
  v1::PutSecretRequest request;
  int tries = 0;
  Done<v1::Secret> done;

  ~Put() {
    wipe(bytes);
    wipe(*request.mutable_value());
  }
};

void EmbeddedSecretStore::put(const CallPtr& call, std::string bytes, Done<v1::Secret> done) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
      !level.is_ok()) {
    return done(std::unexpected(std::move(level)));
  }
  auto put = std::make_shared<Put>();
  put->call = call;
  put->done = std::move(done);
  put->request = parse<v1::PutSecretRequest>(bytes);
  put->bytes = std::move(bytes);
  put_with_key(std::move(put));
}

// Seals by the key in force and proposes; again if the key was changed meanwhile.
void EmbeddedSecretStore::put_with_key(std::shared_ptr<Put> put) {
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [this, put](Result<GroupView> view) {
    if (!view) return put->done(std::unexpected(std::move(view.error())));
    auto envelope = sealed_put(*put, *view);
    if (!envelope) return put->done(std::unexpected(std::move(envelope.error())));
    env_.proposer.propose(kCoreGroup, std::move(*envelope), [this, put](Result<Applied> applied) {
      if (!applied && applied.error().reason() == kKeyChanged && ++put->tries < kTriesMax) return put_with_key(put);
      if (!applied) return put->done(std::unexpected(std::move(applied.error())));
      put_session(put->call, applied->index);
      put->done(parse<v1::Secret>(applied->response));
    });
  });
}

Result<machine::Envelope> EmbeddedSecretStore::sealed_put(const Put& put, const GroupView& view) const {
  const v1::PutSecretRequest& request = put.request;
  internal::v1::PutSecretCommand command;
  auto key = key_in_force(view);
  if (!key) {
    key = seals_.make_key(env_.clock.wall());
    *command.mutable_key() = *key;
  }
  UCCP_TRY(*command.mutable_value(), seals_.seal(*key, scope_of(*put.call), request.name(), request.value()));
  command.mutable_secret()->set_name(request.name());
  *command.mutable_secret()->mutable_labels() = request.labels();
  command.set_if_match(request.if_match());
  command.set_versions_max(options_.versions_max);
  command.set_secrets_max(options_.secrets_max);
  auto envelope = call::make_envelope(*put.call, put.bytes, command_name("put"), command.SerializeAsString());
  // The refusal of a try is remembered under its request id, so each further try has another one: the same for a
  // repeat, which goes the same way and ends at the same result. No caller can choose such an id.
  if (put.tries > 0 && !envelope.dedup.request_id.empty())
    envelope.dedup.request_id += "\n" + std::to_string(put.tries);
  return envelope;
}

void EmbeddedSecretStore::get(const CallPtr& call, const std::string& name, Done<v1::Secret> done) {
  env_.reader.read(kCoreGroup, call->read_level, [call, name, done = std::move(done)](Result<GroupView> view) mutable {
    if (!view) return done(std::unexpected(std::move(view.error())));
    put_session(call, view->applied());
    const auto row = kSecrets.get(*view, scope_of(*call), name);
    if (!row) return done(fail(secret_not_found(name)));
    done(row->secret());
  });
}

void EmbeddedSecretStore::access(const CallPtr& call, std::string bytes, Done<std::string> done) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
      !level.is_ok()) {
    return done(std::unexpected(std::move(level)));
  }
  const auto request = parse<v1::AccessSecretRequest>(bytes);
  internal::v1::AccessSecretCommand command;
  command.set_name(request.name());
  command.set_version(request.version());
  auto envelope = call::make_envelope(*call, bytes, command_name("access"), command.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [this, call, name = request.name(), done = std::move(done)](Result<Applied> applied) mutable {
                          if (!applied) return done(std::unexpected(std::move(applied.error())));
                          put_session(call, applied->index);
                          const auto found = parse<internal::v1::AccessSecretResult>(applied->response);
                          auto value = seals_.open(found.key(), scope_of(*call), name, found.value());
                          if (!value) return done(std::unexpected(std::move(value.error())));
                          v1::SecretValue out;
                          out.set_name(name);
                          out.set_version(found.value().version());
                          out.set_value(*value);
                          wipe(*value);
                          std::string answer = out.SerializeAsString();
                          wipe(*out.mutable_value());
                          done(std::move(answer));
                        });
}

void EmbeddedSecretStore::list(const CallPtr& call, std::string bytes, Done<std::string> done) {
  auto query = call::compile_list(
      *call->method, bytes,
      {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope_of(*call), .key_order = "name"});
  if (!query) return done(std::unexpected(std::move(query.error())));
  env_.reader.read(
      kCoreGroup, call->read_level,
      [this, call, query = std::move(*query), done = std::move(done)](Result<GroupView> view) mutable {
        if (!view) return done(std::unexpected(std::move(view.error())));
        put_session(call, view->applied());
        env_.work.post([call, query = std::move(query), view = std::move(*view), done = std::move(done)]() mutable {
          auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
            const std::string from = after.empty() ? std::string() : std::string(after) + '\0';
            kSecrets.scan(view, scope_of(*call), "", from,
                          [&](std::string_view name, const internal::v1::SecretRow& row) {
                            return visit(name, row.secret().SerializeAsString());
                          });
          });
          if (!page) return done(std::unexpected(std::move(page.error())));
          done(call::encode_page(*call->method, *page));
        });
      });
}

void EmbeddedSecretStore::remove(const CallPtr& call, std::string bytes, Done<v1::DeleteSecretResponse> done) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
      !level.is_ok()) {
    return done(std::unexpected(std::move(level)));
  }
  const auto request = parse<v1::DeleteSecretRequest>(bytes);
  internal::v1::DeleteSecretCommand command;
  command.set_name(request.name());
  command.set_version(request.version());
  command.set_if_match(request.if_match());
  auto envelope = call::make_envelope(*call, bytes, command_name("delete"), command.SerializeAsString());
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [call, done = std::move(done)](Result<Applied> applied) mutable {
                          if (!applied) return done(std::unexpected(std::move(applied.error())));
                          put_session(call, applied->index);
                          done(v1::DeleteSecretResponse());
                        });
}

void EmbeddedSecretStore::rotate_keys(const CallPtr& call, std::string bytes, Done<v1::RotateSecretKeysResponse> done) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
      !level.is_ok()) {
    return done(std::unexpected(std::move(level)));
  }
  internal::v1::AddWrappingKeyCommand command;
  *command.mutable_key() = seals_.make_key(env_.clock.wall());
  auto envelope = call::make_envelope(*call, bytes, command_name("add_key"), command.SerializeAsString());
  envelope.scope.name_space.clear();
  env_.proposer.propose(kCoreGroup, std::move(envelope),
                        [this, call, done = std::move(done)](Result<Applied> applied) mutable {
                          if (!applied) return done(std::unexpected(std::move(applied.error())));
                          KeyRotation::run({env_.proposer, env_.reader, env_.work, seals_}, call,
                                           std::move(applied->response), applied->index, std::move(done));
                        });
}

}  // namespace uccp::secrets
