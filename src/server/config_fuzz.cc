// The configuration file: any YAML is a configuration, or an error that is no crash.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using uccp::server::Config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = Config::load(text, "uccp.yaml", {}, {});
  if (config) {
    // All that was taken can be asked for.
    for (const auto& key : uccp::server::config_keys()) (void)config->text(key.name);
    (void)config->explain();
  } else {
    UCCP_CHECK(config.error().reason() == "CONFIG_INVALID", "every refusal has one reason");
  }
  (void)uccp::server::parse_duration_ms(text);
  return 0;
}
