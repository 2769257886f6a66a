#include "server/config_docs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "server/config.h"

namespace uccp::server {
namespace {

constexpr std::string_view kHead = R"(# Settings

Every key of the server's configuration. This page is what `uccp config docs` prints, from the one table that the
program reads its configuration by; [configuration.md](configuration.md) says how they are set and more about some.

The key is the name in the YAML file. The variable of the environment is the same in capitals (`GRPC_PORT`), the flag
the same with dashes (`--grpc-port`). Keys marked *live* may change
[while nodes run](configuration.md#changes-while-nodes-run).
)";

std::string_view type_name(KeyType type) {
  switch (type) {
    case KeyType::kString: return "text";
    case KeyType::kInteger: return "number";
    case KeyType::kPort: return "port";
    case KeyType::kBool: return "true, false";
    case KeyType::kDuration: return "duration";
    case KeyType::kSecret: return "text, hidden";
  }
  return "";
}

std::string upper(std::string_view name) {
  std::string out(name);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

// A cell of a table: no bar ends it before its time.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

void table(std::string& out, bool with_effect) {
  out += "\n| key | variable | type | default | what it is |\n| --- | --- | --- | --- | --- |\n";
  for (const ConfigKey& key : config_keys()) {
    if ((key.effect != KeyEffect::kUnused) != with_effect) continue;
    const std::string fallback = key.fallback.empty() ? "" : "`" + std::string(key.fallback) + "`";
    fmt::format_to(std::back_inserter(out), "| `{}` | `{}` | {} | {} | {}{} |\n", key.name, upper(key.name),
                   type_name(key.type), cell(fallback), cell(key.help),
                   key.effect == KeyEffect::kLive ? "; *live*" : "");
  }
}

}  // namespace

std::string settings_page() {
  std::string out(kHead);
  out += "\n## With an effect\n";
  table(out, true);
  out +=
      "\n## Without an effect\n\n"
      "They are accepted, so that one file fits all versions. A configured node logs `this setting has no effect in "
      "this\n"
      "version` for each that is set.\n";
  table(out, false);
  return out;
}

}  // namespace uccp::server
