// Routing and building a request from any verb, path, query and body (separated by line ends): never crashes.
#include <cstddef>
#include <cstdint>

#include "call/routes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::call;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto line = [&] {
    const size_t end = rest.find('\n');
    const std::string_view part = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    return part;
  };
  const std::string_view verb = line(), path = line(), query = line();
  const RouteMatch match = RouteTable::get().match(verb, path);
  if (match.outcome != RouteMatch::Outcome::kFound) return 0;
  const auto pairs = parse_query(query);
  if (pairs) (void)build_request(match, *pairs, rest);
  return 0;
}
