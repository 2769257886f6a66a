// The form in which the services of tasks complain of a field.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace uccp::tasks {

inline Status invalid_field(std::string field, std::string what, std::string example = {}) {
  return Status(Code::kInvalid, "FIELD_INVALID", field + " " + what)
      .with_field(std::move(field), std::move(what), std::move(example));
}

// A relative path that stays inside the folder it is relative to.
inline bool stays_inside(std::string_view path) {
  if (path.empty() || path.front() == '/') return false;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    if (path.substr(0, slash) == "..") return false;
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return true;
}

}  // namespace uccp::tasks
