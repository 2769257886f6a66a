// Two clusters side by side, and how one load is put on both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/grpc_load.h"
#include "bench/load.h"

namespace uccp::bench {

inline constexpr size_t kValueBytes = 256;

// A value of `size` bytes that no compression makes small, another for each `i`.
std::string value_of(uint64_t i, size_t size = kValueBytes);
std::string key_of(uint64_t i);

// One side of a comparison: a cluster, and connections to it.
struct Side {
  Cluster* cluster = nullptr;
  bool ours = true;
  std::unique_ptr<GrpcLoad> load;
  uint64_t next = 0;

  // Connects to all nodes, or only to the leader.
  enum class Endpoints : uint8_t { kAll, kLeader };
  Status connect(Endpoints endpoints, int connections);
  LoadResult run(const Work& work, Plan plan);
};

Work put_work(bool ours, size_t value_bytes = kValueBytes);
// Reads of keys below `keys`, each verified. `level` of ours; etcd reads serializably if it is not "linearizable".
Work get_work(bool ours, uint64_t keys, const std::string& level, size_t value_bytes = kValueBytes);
// Writes keys `first` to `keys` in transactions of `batch`. Errors: unavailable BENCH_FAILED.
Status fill(Side& side, uint64_t keys, size_t value_bytes = kValueBytes, size_t batch = 64, uint64_t first = 0);

// Both clusters; `theirs` is empty, and `missing` says why, where etcd is not installed.
struct Duel {
  std::unique_ptr<UccpCluster> uccp;
  std::unique_ptr<EtcdCluster> etcd;
  std::string missing;
  Side ours, theirs;

  static Result<std::unique_ptr<Duel>> start(const Context& context, const UccpClusterOptions& options = {});
  Status connect(Side::Endpoints endpoints, int connections);
  // Names peer and settings in the row.
  void describe(Row& row, const std::string& settings) const;
};

// Counts what failed as the row's problem.
void note_failures(Row& row, const LoadResult& result, bool ours);

}  // namespace uccp::bench
