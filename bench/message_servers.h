// Servers of NATS JetStream and Redis that a benchmark starts on loopback, with the certificates of a cluster of ours,
// so that all sides speak TLS 1.3. Both sync before they confirm.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "bench/cluster.h"
#include "bench/process.h"

namespace uccp::bench {

class NatsServers {
 public:
  // As many nodes as `pki` has. Returns when JetStream answers. Errors: not_found NATS_MISSING; unavailable
  // BENCH_FAILED.
  static Result<std::unique_ptr<NatsServers>> start(const Context& context, const UccpCluster& pki);
  const std::vector<std::string>& targets() const { return targets_; }
  std::vector<int> pids() const;
  const std::string& version() const { return version_; }
  // A stream of the subject with the same name, in files, on all nodes. Errors: what the server says.
  Status make_stream(const std::string& name, const TlsIdentity& tls) const;

 private:
  std::vector<std::string> targets_;
  std::vector<Child> children_;
  std::string version_;
};

class RedisServer {
 public:
  // Errors: not_found REDIS_MISSING.
  static Result<std::unique_ptr<RedisServer>> start(const Context& context, const UccpCluster& pki);
  const std::string& target() const { return target_; }
  int pid() const { return children_.front().pid(); }
  const std::string& version() const { return version_; }

 private:
  std::string target_, version_;
  std::vector<Child> children_;
};

// Bytes that processes have had written to disks so far.
uint64_t bytes_written(const std::vector<int>& pids);

}  // namespace uccp::bench
