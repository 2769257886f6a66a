// What the log knows of backups: that one was asked for. The commands change nothing; they are there for the audit
// trail and so that a repeated request finds the first one's id. Pure.
#pragma once

#include "machine/domain.h"

namespace uccp::backup {

inline constexpr std::string_view kBeginCommand = "backup.begin";        // payload and response: the id
inline constexpr std::string_view kRestoreCommand = "backup.restore";    // before the state is replaced
inline constexpr std::string_view kRestoredCommand = "backup.restored";  // the first command on the new state

class BackupState final : public machine::Domain {
 public:
  std::string_view name() const override { return "backup"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

}  // namespace uccp::backup
