#include "bench/audit_cost.h"

#include <fmt/format.h>
#include <time.h>

#include "base/random.h"
#include "bench/process.h"
#include "machine/machine.h"
#include "services/kv/kv_state.h"
#include "storage/rocksdb/rocks_kv.h"
#include "uccp/internal/v1/kv_state.pb.h"

namespace uccp::bench {
namespace {

constexpr size_t kValueBytes = 256;
constexpr uint64_t kKeys = 50'000;
constexpr uint64_t kPuts = 25'600;  // of one sample
constexpr size_t kBlockCacheBytes = 96u << 20;
constexpr double kGoal = 0.5;  // a put with its record costs at most twice the put

// CPU time of this thread: what else the machine does, and what RocksDB does in the background, is not counted.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string put_entry(uint64_t key, const std::string& value, bool audited) {
  internal::v1::KvPutCommand command;
  command.mutable_request()->set_key(fmt::format("bench/key/{:08}", key));
  command.mutable_request()->set_value(value);
  command.mutable_limits()->set_bytes_max(1ull << 40);
  command.mutable_limits()->set_keys_max(1ull << 40);
  machine::Envelope e;
  e.scope = {"default", "default"};
  e.principal = "admin";
  e.method = "uccp.v1.KeyValue/Put";
  e.command = "kv.put";
  e.resource = command.request().key();
  e.audited = audited;
  e.wall = {1'700'000'000'000'000};
  e.payload = command.SerializeAsString();
  return machine::encode_envelope(e);
}

class Store {
 public:
  explicit Store(storage::Kv& kv) : machine_(kCoreGroup, kv, {&state_}) {}
  Status open() { return machine_.open(); }

  struct Puts {
    uint64_t count;
    size_t together;
    bool in_order;  // fresh keys; else drawn among those that are there
    bool audited;
  };
  // Microseconds of CPU that the loop needs for a put. Errors: those of apply; internal BENCH_FAILED.
  Result<double> us_per_put(const Puts& puts) {
    std::string value(kValueBytes, 'v');
    double seconds = 0;
    for (uint64_t done = 0; done < puts.count; done += puts.together) {
      std::vector<Entry> entries;
      for (size_t i = 0; i < puts.together; ++i) {
        value[i % kValueBytes] = static_cast<char>('a' + random_.below(26));
        const uint64_t key = puts.in_order ? done + i : random_.below(kKeys);
        entries.push_back({Term(1), LogIndex(machine_.applied().value + i + 1), EntryKind::kCommand,
                           put_entry(key, value, puts.audited)});
      }
      const double start = thread_seconds();
      UCCP_TRY(const auto batch, machine_.apply(entries));
      seconds += thread_seconds() - start;
      for (const auto& one : batch.results) {
        if (!one.result) return fail(Code::kInternal, "BENCH_FAILED", one.result.error().message());
      }
    }
    return seconds / static_cast<double>(puts.count) * 1e6;
  }
  uint64_t records() const { return machine::audit_span(machine_.view()).next; }

 private:
  SeededRandom random_{1};
  kv::KvState state_;
  machine::Machine machine_;
};

}  // namespace

Status measure_audit(Context& context) {
  const std::string directory = new_directory(context, "audit");
  UCCP_TRY(const auto kv, storage::RocksKv::open(directory, {.block_cache_bytes = kBlockCacheBytes}));
  Store store(*kv);
  UCCP_RETURN_IF_ERROR(store.open());
  UCCP_TRY(const double filled, store.us_per_put({kKeys, 64, true, false}));
  context.say(fmt::format("{} keys, {:.1f} us each", kKeys, filled));
  for (const size_t together : {size_t{1}, size_t{64}}) {
    Row row{.metric = fmt::format("apply of a put with its audit record, {} together", together),
            .unit = "us",
            .better = Better::kLower,
            .goal = {Goal::Of::kRatio, Better::kHigher, kGoal}};
    row.peer_name = "the same without a record";
    row.peer_required = true;
    row.settings = fmt::format("CPU of the thread, values of {} B over {} keys, RocksDB", kValueBytes, kKeys);
    for (int pair = 0; pair < context.pairs(); ++pair) {
      const uint64_t before = store.records();
      UCCP_TRY(const double with, store.us_per_put({kPuts, together, false, true}));
      const uint64_t written = store.records() - before;
      UCCP_TRY(const double without, store.us_per_put({kPuts, together, false, false}));
      row.add_ours(with);
      row.add_peer(without);
      row.verified += written;
      if (written != kPuts || store.records() != before + kPuts) row.problem = "not every put has its record";
    }
    if (row.ours() && row.peer()) row.detail("recordUs", *row.ours() - *row.peer());
    context.emit(row);
  }
  return Status::ok();
}

}  // namespace uccp::bench
