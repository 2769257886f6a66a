#include "server/kv_settings.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace uccp::server {
namespace {

// What the log adds to a request.
constexpr int64_t kEnvelopeBytes = 128 << 10;

Result<uint64_t> read(const Config& config, std::string_view key, int64_t min, int64_t max) {
  const int64_t number = config.integer(key);
  if (number >= min && number <= max) return static_cast<uint64_t>(number);
  const Config::Value& value = config.values().find(key)->second;
  return fail(Code::kInvalid, "CONFIG_INVALID",
              fmt::format("{}: '{}' of '{}' is out of range; it must be {} to {}", value.origin, value.text, key, min, max));
}

}  // namespace

Result<kv::KvOptions> kv_settings(const Config& config) {
  kv::KvOptions options;
  UCCP_TRY(options.request_bytes_max,
           read(config, "kv_request_bytes_max", 1 << 10, static_cast<int64_t>(limits::kCommandBytesMax) - kEnvelopeBytes));
  UCCP_TRY(options.bytes_max, read(config, "kv_bytes_max", 1 << 20, int64_t{1} << 50));
  UCCP_TRY(options.keys_max, read(config, "kv_keys_max", 1, int64_t{1} << 40));
  UCCP_TRY(options.leases_max, read(config, "kv_leases_max", 1, int64_t{1} << 30));
  UCCP_TRY(const uint64_t operations, read(config, "kv_txn_operations_max", 1, 10'000));
  options.txn_operations_max = static_cast<uint32_t>(operations);
  return options;
}

}  // namespace uccp::server
