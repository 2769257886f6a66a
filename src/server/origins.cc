#include "server/origins.h"

#include <re2/re2.h>

#include <algorithm>

namespace uccp::server {

Result<std::vector<std::string>> parse_origins(std::string_view text) {
  static const re2::RE2 kOrigin(R"(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)");
  std::vector<std::string> origins;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string origin(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (!re2::RE2::FullMatch(origin, kOrigin)) {
      return fail(Code::kInvalid, "CONFIG_INVALID",
                  "cors_origins: '" + origin + "' is no origin, which is https://HOST, https://HOST:PORT or *");
    }
    origins.push_back(std::move(origin));
  }
  return origins;
}

}  // namespace uccp::server
