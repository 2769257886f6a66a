#include "services/secrets/key_rotation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/bytes.h"
#include "machine/read_level.h"

namespace uccp::secrets {
namespace {

using internal::v1::SecretRow;
using internal::v1::WrappingKeyRow;
using machine::Applied;
using machine::GroupView;
using machine::ReadLevel;

machine::Envelope system_command(std::string_view verb, std::string payload) {
  machine::Envelope envelope;
  envelope.principal = "system";
  envelope.command = std::string(kDomain) + "." + std::string(verb);
  envelope.payload = std::move(payload);
  return envelope;
}

}  // namespace

void KeyRotation::run(RotationEnvironment environment, const call::CallPtr& call, std::string key_id, LogIndex index,
                      Done done) {
  std::shared_ptr<KeyRotation> rotation(new KeyRotation(environment, call, std::move(done)));
  rotation->key_id_ = std::move(key_id);
  const ReadLevel level{.kind = ReadLevel::Kind::kSession, .token = {{kCoreGroup, index}}};
  environment.reader.read(kCoreGroup, level, [rotation](Result<GroupView> view) {
    if (!view) return rotation->finish(std::move(view.error()));
    rotation->env_.work.post([rotation, view = std::move(*view)]() mutable { rotation->collect(std::move(view)); });
  });
}

void KeyRotation::collect(GroupView view) {
  const auto current = key_in_force(view);
  kWrappingKeys.scan(view, {}, "", "", [&](std::string_view id, const WrappingKeyRow& row) {
    if (row.retired()) retired_.emplace_back(id);
    return true;
  });
  kSecrets.scan_all(view, [&](const machine::Scope& scope, std::string_view name, const SecretRow& row) {
    const bool is_behind =
        std::ranges::any_of(row.values(), [&](const auto& v) { return current && v.key_id() != current->id(); });
    if (is_behind) left_.push_back({scope, std::string(name)});
    return true;
  });
  next();
}

// One secret at a time: a rotation is seldom, and everybody else is in a hurry.
void KeyRotation::next() {
  if (call_->finished()) return;
  if (left_.empty()) return drop_keys();
  env_.reader.read(kCoreGroup, ReadLevel::linearizable(), [self = shared_from_this()](Result<GroupView> view) {
    if (!view) return self->finish(std::move(view.error()));
    self->env_.work.post([self, view = std::move(*view)] {
      const Secret secret = std::move(self->left_.back());
      self->left_.pop_back();
      auto payload = self->rewrapped(view, secret);
      if (!payload) return self->finish(std::move(payload.error()));
      if (payload->empty()) return self->next();
      self->env_.proposer.propose(kCoreGroup, system_command("rewrap", std::move(*payload)),
                                  [self, secret](Result<Applied> applied) {
                                    // Another rotation came: this secret is to be wrapped by its key.
                                    if (!applied && applied.error().reason() == kKeyChanged) {
                                      self->left_.push_back(secret);
                                      return self->next();
                                    }
                                    if (!applied) return self->finish(std::move(applied.error()));
                                    self->count_ += ByteReader(applied->response).u64();
                                    self->next();
                                  });
    });
  });
}

// The command that wraps what is left of a secret; empty: nothing is left.
Result<std::string> KeyRotation::rewrapped(const GroupView& view, const Secret& secret) const {
  const auto row = kSecrets.get(view, secret.scope, secret.name);
  const auto current = key_in_force(view);
  internal::v1::RewrapSecretCommand command;
  for (int i = 0; row && current && i < row->values_size(); ++i) {
    const auto& value = row->values(i);
    if (value.key_id() == current->id()) continue;
    const auto key = kWrappingKeys.get(view, {}, value.key_id());
    UCCP_TRY(*command.add_values(),
             env_.seals.rewrap(key.value_or(WrappingKeyRow()), *current, secret.scope, secret.name, value));
  }
  if (command.values_size() == 0) return std::string();
  command.set_tenant(secret.scope.tenant);
  command.set_name_space(secret.scope.name_space);
  command.set_name(secret.name);
  return command.SerializeAsString();
}

void KeyRotation::drop_keys() {
  internal::v1::DropWrappingKeysCommand command;
  command.mutable_ids()->Assign(retired_.begin(), retired_.end());
  env_.proposer.propose(kCoreGroup, system_command("drop_keys", command.SerializeAsString()),
                        [self = shared_from_this()](Result<Applied> applied) {
                          self->finish(applied ? Status::ok() : std::move(applied.error()));
                        });
}

void KeyRotation::finish(Status status) {
  if (!status.is_ok()) return done_(std::unexpected(std::move(status)));
  v1::RotateSecretKeysResponse out;
  out.set_key_id(key_id_);
  out.set_rewrapped(static_cast<uint32_t>(std::min<uint64_t>(count_, std::numeric_limits<uint32_t>::max())));
  done_(std::move(out));
}

}  // namespace uccp::secrets
