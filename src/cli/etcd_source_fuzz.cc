// Any bytes as a snapshot of etcd, as it is and with the hash that makes it whole: it is refused, or its pairs come in
// the order of their keys, each once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/hash.h"
#include "cli/etcd_source.h"

namespace {

void read_all(std::string file) {
  const auto source = uccp::cli::etcd_snapshot(std::move(file));
  if (!source) {
    const auto reason = source.error().reason();
    if (reason != "SNAPSHOT_INVALID" && reason != "BOLT_INVALID") std::abort();
    return;
  }
  std::string after;
  for (bool first = true;; first = false) {
    const auto pairs = (*source)->read("", after);
    if (!pairs) std::abort();
    if (pairs->empty()) return;
    for (const auto& pair : *pairs) {
      if (!first && pair.key <= after) std::abort();
      first = false;
      after = pair.key;
      if (pair.lease != 0) (void)(*source)->lease_ttl(pair.lease);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  read_all(bytes);
  read_all(bytes + uccp::sha256(bytes));
  return 0;
}
