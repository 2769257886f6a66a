#include "call/method.h"

#include "call/routes.h"

namespace uccp::call {

std::string location_of(const Method& method, std::string_view response) {
  std::string location;
  std::string_view rest = method.location;
  while (!rest.empty()) {
    const size_t open = rest.find('{');
    location.append(rest.substr(0, open));
    if (open == std::string_view::npos) break;
    const size_t close = rest.find('}', open);
    const auto path = FieldPath::compile(*method.response, rest.substr(open + 1, close - open - 1));
    const auto text = path ? get_text(*path, response) : std::nullopt;
    if (!text || text->empty()) return {};
    location.append(percent_encode(*text));
    rest.remove_prefix(close + 1);
  }
  return location;
}

}  // namespace uccp::call
