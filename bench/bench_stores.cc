// What the choices about the log and the disk cost: durable submission of tasks with each of them, beside the defaults.
#include <array>

#include "bench/bench.h"
#include "bench/variants.h"

namespace uccp::bench {

Status run_stores(Context& context) {
  const std::array variants = {
      Variant{"encrypted: log, state, blobs", {"--encryption-key-file", write_master_key(context)}, 0.8},
      Variant{"log in RocksDB", {"--log-store", "rocksdb"}, 0.3},
      Variant{"log in LMDB", {"--log-store", "lmdb"}, 0.2},
      Variant{"group work owns its log", {"--own-log-groups", "work"}, 0.8},
  };
  UCCP_TRY(Side plain, Side::start(context, {}));
  for (const Variant& variant : variants) UCCP_RETURN_IF_ERROR(measure_variant(context, plain, variant));
  return Status::ok();
}

}  // namespace uccp::bench
