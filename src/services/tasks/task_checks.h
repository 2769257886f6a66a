// The form in which the services of tasks complain of a field.
#pragma once

#include <string>
#include <utility>

#include "base/status.h"

namespace uccp::tasks {

inline Status invalid_field(std::string field, std::string what, std::string example = {}) {
  return Status(Code::kInvalid, "FIELD_INVALID", field + " " + what)
      .with_field(std::move(field), std::move(what), std::move(example));
}

}  // namespace uccp::tasks
