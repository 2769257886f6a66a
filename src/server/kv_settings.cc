#include "server/kv_settings.h"

#include "base/limits.h"

namespace uccp::server {
namespace {

// What the log adds to a request.
constexpr int64_t kEnvelopeBytes = 128 << 10;

}  // namespace

Result<kv::KvOptions> kv_settings(const Config& config) {
  kv::KvOptions options;
  UCCP_TRY(options.request_bytes_max,
           config.integer_between("kv_request_bytes_max", 1 << 10,
                                  static_cast<int64_t>(limits::kCommandBytesMax) - kEnvelopeBytes));
  UCCP_TRY(options.bytes_max, config.integer_between("kv_bytes_max", 1 << 20, int64_t{1} << 50));
  UCCP_TRY(options.keys_max, config.integer_between("kv_keys_max", 1, int64_t{1} << 40));
  UCCP_TRY(options.leases_max, config.integer_between("kv_leases_max", 1, int64_t{1} << 30));
  UCCP_TRY(const uint64_t operations, config.integer_between("kv_txn_operations_max", 1, 10'000));
  options.txn_operations_max = static_cast<uint32_t>(operations);
  return options;
}

}  // namespace uccp::server
