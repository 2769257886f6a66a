// Settings that were changed while the cluster runs, as the replicated state has them. Pure.
#pragma once

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/settings_state.pb.h"

namespace uccp::admin {

inline constexpr std::string_view kSettingsDomain = "settings";
inline constexpr machine::TableId kSettingsTable = 242;  // "" -> ClusterSettingsRow
inline constexpr machine::Table<internal::v1::ClusterSettingsRow> kClusterSettings(kSettingsTable);

class SettingsState final : public machine::Domain {
 public:
  std::string_view name() const override { return kSettingsDomain; }
  // update; answers the row after it.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  std::vector<machine::TableNumber> tables_of_the_cluster() const override { return {kSettingsTable}; }
};

}  // namespace uccp::admin
