#include "services/admin/settings_state.h"

#include "services/message_types.h"

namespace uccp::admin {
namespace {

machine::ApplyResult apply_update(machine::ApplyContext& context, std::string_view payload) {
  const auto command = services::parse<internal::v1::UpdateSettingsCommand>(payload);
  auto row = kClusterSettings.get(context.state(), {}, "").value_or(internal::v1::ClusterSettingsRow());
  const std::string etag = std::to_string(row.revision());
  if (!command.if_match().empty() && command.if_match() != etag) {
    return fail(Code::kConflict, "ETAG_MISMATCH",
                "the settings of the cluster were changed meanwhile: they are at " + etag + ", not at " +
                    command.if_match() + "; read them again");
  }
  for (const internal::v1::SettingChange& change : command.changes()) {
    if (change.unset()) row.mutable_values()->erase(change.name());
    else (*row.mutable_values())[change.name()] = change.value();
  }
  row.set_revision(row.revision() + 1);
  services::set_wall(row.mutable_update_time(), {command.request_us()});
  kClusterSettings.put(context.state(), {}, "", row);
  return machine::Table<internal::v1::ClusterSettingsRow>::serialize(row);
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> SettingsState::commands() {
  return {{"update", apply_update}};
}

}  // namespace uccp::admin
