#include "call/method.h"

#include "call/routes.h"

namespace uccp::call {
namespace {

// "?a=1&b=&c=2" has "?a=1&c=2" to say.
std::string without_empty(std::string_view query) {
  std::string out;
  while (!query.empty()) {
    query.remove_prefix(1);
    const std::string_view part = query.substr(0, query.find('&'));
    if (!part.ends_with('=')) out.append(out.empty() ? "?" : "&").append(part);
    query.remove_prefix(part.size());
  }
  return out;
}

}  // namespace

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
    // Without a name in the path there is no place; what is not given in the query is the default.
    const bool in_path = location.find('?') == std::string::npos;
    if (in_path && (!text || text->empty())) return {};
    if (text) location.append(percent_encode(*text));
    rest.remove_prefix(close + 1);
  }
  const size_t query = location.find('?');
  if (query != std::string::npos)
    location = location.substr(0, query) + without_empty(std::string_view(location).substr(query));
  return location;
}

}  // namespace uccp::call
