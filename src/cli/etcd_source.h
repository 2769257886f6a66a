// Where `etcd import` reads from: a live etcd through its API, or a file of `etcdctl snapshot save`. Both answer the
// newest versions at one revision, in the order of keys.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/transport.h"

namespace uccp::cli {

struct EtcdPair {
  std::string key, value;
  int64_t lease = 0;  // 0: none
};

class EtcdSource {
 public:
  virtual ~EtcdSource() = default;
  // What it is and of which revision: an import goes on only where this is the same.
  virtual std::string identity() const = 0;
  virtual int64_t revision() const = 0;
  // Pairs whose keys begin with `prefix` and are greater than `after`, in order, a few at a time; none: that was all.
  virtual Result<std::vector<EtcdPair>> read(const std::string& prefix, const std::string& after) = 0;
  // Seconds that the lease has still to live; 0: it is gone.
  virtual Result<int64_t> lease_ttl(int64_t id) = 0;
};

// Reads at `revision`, 0: the newest one now. Errors: those of the connection; failed_precondition SOURCE_COMPACTED.
Result<std::unique_ptr<EtcdSource>> live_etcd(std::unique_ptr<Transport> transport, int64_t revision);
// Errors: corruption SNAPSHOT_INVALID.
Result<std::unique_ptr<EtcdSource>> etcd_snapshot(std::string file);

}  // namespace uccp::cli
