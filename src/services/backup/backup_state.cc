#include "services/backup/backup_state.h"

namespace uccp::backup {

std::map<std::string, machine::ApplyFunction, std::less<>> BackupState::commands() {
  const auto echo = [](machine::ApplyContext&, std::string_view payload) -> machine::ApplyResult {
    return std::string(payload);
  };
  return {{"begin", echo}, {"restore", echo}, {"restored", echo}};
}

}  // namespace uccp::backup
