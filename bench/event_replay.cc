#include "bench/event_replay.h"

#include <fmt/format.h>

#include <vector>

#include "bench/event_requests.h"
#include "bench/event_stream.h"
#include "bench/files.h"
#include "bench/load.h"

namespace uccp::bench {

Status replay(const Context& context, UccpCluster& cluster, const std::string& topic, size_t bytes, uint64_t events,
              Row& row) {
  const std::vector<std::string> files = large_files(cluster.directory());
  for (int i = 0; i < context.pairs(); ++i) {
    go_through(files, false);
    uint64_t count = 0;
    const double server_cpu = cpu_seconds_of(cluster.pids()), own_cpu = own_cpu_seconds();
    SteadyTime begin = SteadyTime::clock::now();
    UCCP_RETURN_IF_ERROR(read_stream(cluster.target(0), cluster.tls(), kSubscribe, subscribe_request(topic, true),
                                     [&](std::string_view message) {
                                       const auto payload = delivered_payload(message);
                                       count += payload && payload->size() == bytes;
                                       return true;
                                     }));
    const double megabytes = static_cast<double>(count * bytes) / 1e6;
    row.add_ours(megabytes / since(begin));
    row.detail("serverMsPerMb", (cpu_seconds_of(cluster.pids()) - server_cpu) * 1e3 / megabytes);
    row.detail("generatorMsPerMb", (own_cpu_seconds() - own_cpu) * 1e3 / megabytes);
    row.verified += count;
    if (count != events) row.problem = fmt::format("{} of {} events were read", count, events);
    go_through(files, false);
    const double peer_cpu = own_cpu_seconds();
    begin = SteadyTime::clock::now();
    const uint64_t read = go_through(files, true);
    row.add_peer(static_cast<double>(read) / 1e6 / since(begin));
    row.detail("readerMsPerMb", (own_cpu_seconds() - peer_cpu) * 1e9 / static_cast<double>(read));
  }
  return Status::ok();
}

}  // namespace uccp::bench
