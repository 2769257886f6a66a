// Which commands a node still takes when its disk is nearly full.
#pragma once

#include <algorithm>
#include <iterator>
#include <string_view>

namespace uccp::server {

// What is done even on a disk that is nearly full.
inline bool frees_space(std::string_view command) {
  static constexpr std::string_view kFreeing[] = {"machine.expire",
                                                  "discovery.deregister",
                                                  "tasks.cancel",
                                                  "tasks.prune",
                                                  "tasks.outcomes",
                                                  "tasks.stop_gangs",
                                                  "workers.fence",
                                                  "workers.hello",
                                                  "workers.drain",
                                                  "permits.release",
                                                  "workers.deregister",
                                                  "permits.abandon",
                                                  "permits.break",
                                                  "elections.resign",
                                                  "sync.withdraw",
                                                  "sync.delete_latch",
                                                  "kv.delete",
                                                  "kv.compact",
                                                  "kv.sweep",
                                                  "kv.revoke",
                                                  "topics.delete",
                                                  "bus.drop",
                                                  "bus.trim",
                                                  "secrets.delete",
                                                  "compute.remove",
                                                  "quotas.delete",
                                                  "transactions.end",
                                                  "transactions.settle",
                                                  "transactions.settled",
                                                  "bus.retire",
                                                  "transactions.retire"};
  return std::ranges::find(kFreeing, command) != std::end(kFreeing);
}

}  // namespace uccp::server
