#include "services/kv/kv_sweeper.h"

#include <memory>
#include <utility>

#include "base/bytes.h"
#include "services/kv/kv_compaction.h"
#include "services/kv/kv_state.h"
#include "uccp/internal/v1/kv_state.pb.h"

namespace uccp::kv {
namespace {

using machine::Scope;

std::vector<Scope> unswept(const machine::GroupView& view) {
  std::vector<Scope> scopes;
  const std::string prefix = machine::table_key::begin(kHeadTable).take();
  view.scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view row) {
    if (!needs_sweeping(decode_head(row))) return true;
    ByteReader in(key.substr(prefix.size()));
    Scope scope;
    scope.tenant = in.key_part();
    scope.name_space = in.key_part();
    scopes.push_back(std::move(scope));
    return true;
  });
  return scopes;
}

}  // namespace

void KvSweeper::on_leadership(bool leads) {
  if (!leads) return;
  reader_.read(kCoreGroup, machine::ReadLevel::linearizable(), [this](Result<machine::GroupView> view) {
    if (!view) return;
    work_.post([this, view = std::move(*view)] {
      for (Scope& scope : unswept(view)) sweep(scope, [](const Status&) {});
    });
  });
}

void KvSweeper::sweep(const Scope& scope, Done done) {
  auto shared = std::make_shared<Done>(std::move(done));
  loop_.post([this, scope, shared] {
    Running& running = running_[scope];
    running.dones.push_back(std::move(*shared));
    running.again = true;
    if (running.dones.size() == 1) step(scope);
  });
}

void KvSweeper::step(const Scope& scope) {
  running_[scope].again = false;
  internal::v1::KvSweepCommand command;
  command.set_changes_max(kSweptPerCommand);
  machine::Envelope envelope;
  envelope.scope = scope;
  envelope.principal = "system";
  envelope.command = std::string(kDomain) + ".sweep";
  envelope.payload = command.SerializeAsString();
  proposer_.propose(kCoreGroup, std::move(envelope), [this, scope](Result<machine::Applied> applied) {
    if (!applied) return finish(scope, applied.error());
    internal::v1::KvSweepResult result;
    const bool done = result.ParseFromString(applied->response) && result.done();
    if (done && !running_[scope].again) return finish(scope, Status::ok());
    step(scope);
  });
}

void KvSweeper::finish(const Scope& scope, const Status& status) {
  auto node = running_.extract(scope);
  if (node.empty()) return;
  for (Done& done : node.mapped().dones) done(status);
}

}  // namespace uccp::kv
