#include "agent/duration_text.h"

#include <exception>

namespace uccp::agent {

int64_t parse_duration_ms(const std::string& text) {
  if (text.empty()) return 0;
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    return -1;
  }
  const std::string unit = text.substr(used);
  const double factor = unit == "ms"                  ? 1
                        : unit == "s" || unit.empty() ? 1000
                        : unit == "m"                 ? 60'000
                        : unit == "h"                 ? 3600'000
                                                      : -1;
  return factor < 0 || value < 0 ? -1 : static_cast<int64_t>(value * factor);
}

}  // namespace uccp::agent
