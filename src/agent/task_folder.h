// The folder of an attempt: made, filled with inputs, handed to the task's user, removed.
//
// Invariants: until the command starts only the agent writes here, and paths are checked to stay inside; after the end
// nothing of the attempt is alive. So neither side can play tricks with links while the other works.
// Callable from any thread; all calls block on disk.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/executor.h"
#include "base/status.h"

namespace uccp::agent {

// Folder for temporary files inside the attempt's folder; never collected.
inline constexpr std::string_view kTemporaryName = ".tmp";

struct FolderOwner {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// True for a relative path without empty, "." and ".." parts that is no longer than 1024 bytes.
bool is_inner_path(std::string_view path);

// Makes `folder` (mode 0700) with its temporary folder, the working folder and the inputs, all owned by `owner`. Making
// it again over a finished one is fine. Errors: invalid INPUT_PATH_INVALID; exhausted NO_SPACE; unavailable IO_ERROR.
Status make_task_folder(const std::string& folder, const AttemptSpec& spec, const std::optional<FolderOwner>& owner);
// Removes the folder with all that is in it; links are removed, not followed.
Status remove_task_folder(const std::string& folder);

}  // namespace uccp::agent
