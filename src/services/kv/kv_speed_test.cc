// What a put costs in apply, CPU of the loop: values of 256 bytes, a store of a million keys, fresh keys and
// overwritten ones. Off by default: run with --gtest_also_run_disabled_tests. UCCP_KV_KEYS sets the number of keys.
#include <gtest/gtest.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/random.h"
#include "machine/machine.h"
#include "services/kv/kv_range.h"
#include "services/kv/kv_state.h"
#include "storage/rocksdb/rocks_kv.h"
#include "uccp/internal/v1/kv_state.pb.h"

namespace uccp::kv {
namespace {

constexpr size_t kValueBytes = 256;
const machine::Scope kScope{"default", "default"};

// CPU time of this thread: what else the machine does, and what RocksDB does in the background, is not counted.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string put_entry(uint64_t key, const std::string& value, bool audited) {
  internal::v1::KvPutCommand command;
  command.mutable_request()->set_key("bench/key/" + std::to_string(10'000'000 + key));
  command.mutable_request()->set_value(value);
  command.mutable_limits()->set_bytes_max(1ull << 40);
  command.mutable_limits()->set_keys_max(1ull << 40);
  machine::Envelope e;
  e.scope = kScope;
  e.principal = "admin";
  e.method = "uccp.v1.KeyValue/Put";
  e.command = "kv.put";
  e.resource = command.request().key();
  e.audited = audited;
  e.wall = {1'700'000'000'000'000};
  e.payload = command.SerializeAsString();
  return machine::encode_envelope(e);
}

class Bench {
 public:
  explicit Bench(storage::Kv& kv) : machine_(kCoreGroup, kv, {&state_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  // `batch`: commands that are applied together.
  void puts(const char* what, uint64_t count, uint64_t keys, size_t batch, bool fresh, bool audited) {
    SeededRandom random(count);
    std::string value(kValueBytes, 'v');
    double seconds = 0;
    for (uint64_t done = 0; done < count; done += batch) {
      std::vector<Entry> entries;
      for (size_t i = 0; i < batch; ++i) {
        value[i % kValueBytes] = static_cast<char>('a' + random.below(26));
        const uint64_t key = fresh ? done + i : random.below(keys);
        entries.push_back(
            {Term(1), LogIndex(machine_.applied().value + i + 1), EntryKind::kCommand, put_entry(key, value, audited)});
      }
      const double start = thread_seconds();
      ASSERT_TRUE(machine_.apply(entries).has_value());
      seconds += (thread_seconds() - start);
    }
    std::printf("%-40s batch %3zu: %5.2f us a put\n", what, batch, seconds / static_cast<double>(count) * 1e6);
  }
  void gets(uint64_t count, uint64_t keys) {
    SeededRandom random(count);
    const double start = thread_seconds();
    size_t bytes = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = "bench/key/" + std::to_string(10'000'000 + random.below(keys));
      bytes += version_at(machine_.view(), kScope, key, UINT64_MAX, UINT64_MAX).value_or("").size();
    }
    std::printf("%-40s %15.2f us a get, %zu bytes\n", "newest version",
                (thread_seconds() - start) / static_cast<double>(count) * 1e6, bytes / count);
  }

 private:
  KvState state_;
  machine::Machine machine_;
};

uint64_t resident_mb() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096 >> 20;
}

TEST(KvSpeed, DISABLED_Rocks) {
  const char* asked = std::getenv("UCCP_KV_KEYS");
  const uint64_t keys = asked == nullptr ? 1'000'000 : std::strtoull(asked, nullptr, 10);
  const std::string directory = ::testing::TempDir() + "kv_speed";
  std::filesystem::remove_all(directory);
  {
    auto kv = storage::RocksKv::open(directory, {.block_cache_bytes = 96u << 20});
    ASSERT_TRUE(kv.has_value());
    Bench bench(**kv);
    bench.puts("fresh keys, audited", keys, keys, 64, true, true);
    std::printf("resident: %lu MiB for %lu keys\n", resident_mb(), keys);
    for (const size_t batch : {1, 8, 64, 256}) {
      bench.puts("overwrites", 51'200, keys, batch, false, false);
      bench.puts("overwrites, audited", 51'200, keys, batch, false, true);
    }
    bench.gets(200'000, keys);
    std::printf("resident: %lu MiB\n", resident_mb());
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace uccp::kv
