// How fast Discover is with many services, on both stores. Off by default: run with --gtest_also_run_disabled_tests.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "machine/machine.h"
#include "services/discovery/discovery_query.h"
#include "storage/memory/memory_kv.h"
#include "storage/rocksdb/rocks_kv.h"

namespace uccp::discovery {
namespace {

constexpr int kServices = 10'000;
constexpr int kInstances = 10;
constexpr int kRowsPerBatch = 256;
constexpr int kQueries = 100'000;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void fill(machine::Machine& machine) {
  std::vector<Entry> batch;
  const auto flush = [&] {
    ASSERT_TRUE(machine.apply(batch).has_value());
    batch.clear();
  };
  for (int i = 0; i < kServices * kInstances; ++i) {
    internal::v1::RegisterServiceCommand command;
    auto& s = *command.mutable_service();
    s.set_service_name("service-" + std::to_string(i % kServices));
    s.set_address("10.0." + std::to_string(i / 250 % 250) + "." + std::to_string(i % 250));
    s.set_port(1000 + i % 60000);
    s.set_version("1.2.3");
    s.set_region("eu-west-1");
    (*s.mutable_labels())["tier"] = "web";
    command.set_new_id("svc_01J8ZQ4V5K" + std::to_string(10'000'000 + i));
    command.set_instances_max(kInstancesMaxDefault);
    machine::Envelope e;
    e.scope = {"t", "default"};
    e.principal = "p";
    e.command = "discovery.register";
    e.wall = {1'700'000'000'000'000};
    e.payload = command.SerializeAsString();
    batch.push_back({Term(1), LogIndex(machine.applied().value + batch.size() + 1), EntryKind::kCommand,
                     machine::encode_envelope(e)});
    if (batch.size() == kRowsPerBatch) flush();
  }
  flush();
}

void measure(const char* store, storage::Kv& kv) {
  DiscoveryState state;
  machine::Machine machine(kCoreGroup, kv, {&state});
  ASSERT_TRUE(machine.open().is_ok());
  auto start = std::chrono::steady_clock::now();
  fill(machine);
  std::printf("%s: register %.0f/s (apply only)\n", store, kServices * kInstances / seconds_since(start));
  ASSERT_TRUE(kv.flush().is_ok());
  const Presence presence(WallTime{0});
  SeededRandom random(1);
  for (const bool filtered : {false, true}) {
    start = std::chrono::steady_clock::now();
    size_t bytes = 0;
    for (int i = 0; i < kQueries; ++i) {
      v1::DiscoverRequest request;
      request.set_name("service-" + std::to_string(random.below(kServices)));
      if (filtered) {
        request.set_version("^1.2");
        request.set_labels("tier=web");
      }
      auto query = DiscoverQuery::compile(request);
      auto response = query->run(machine.view(), {"t", "default"}, presence, random);
      bytes += response->size();
    }
    const double seconds = seconds_since(start);
    std::printf("%s: discover%s %.0f/s, %.1f us, %zu bytes an answer\n", store,
                filtered ? " with version and labels" : "", kQueries / seconds, seconds / kQueries * 1e6,
                bytes / kQueries);
  }
}

TEST(DiscoverySpeed, DISABLED_Memory) {
  storage::MemoryKv kv;
  measure("memory", kv);
}

TEST(DiscoverySpeed, DISABLED_Rocks) {
  const std::string directory = ::testing::TempDir() + "discovery_speed";
  std::filesystem::remove_all(directory);
  {
    auto kv = storage::RocksKv::open(directory, {.block_cache_bytes = 64u << 20});
    ASSERT_TRUE(kv.has_value());
    measure("rocks", **kv);
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace uccp::discovery
