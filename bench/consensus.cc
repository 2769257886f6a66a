#include "bench/consensus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "base/random.h"
#include "bench/requests.h"

namespace uccp::bench {

std::string value_of(uint64_t i, size_t size) {
  SeededRandom random(i * 2 + 1);
  std::string out(size, '\0');
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random.next();
    std::memcpy(out.data() + at, &word, std::min<size_t>(8, size - at));
  }
  return out;
}

std::string key_of(uint64_t i) { return fmt::format("bench/{:010}", i); }

Status Side::connect(Endpoints endpoints, int connections) {
  std::vector<std::string> targets = cluster->targets();
  if (endpoints == Endpoints::kLeader) {
    UCCP_TRY(const size_t leader, cluster->leader());
    targets = {cluster->target(leader)};
  }
  UCCP_TRY(load, GrpcLoad::connect(targets, cluster->tls(), connections));
  return Status::ok();
}

LoadResult Side::run(const Work& work, Plan plan) {
  plan.first_index = next;
  plan.server_pids = cluster->pids();
  LoadResult result = load->run(work, plan);
  next = result.next_index;
  return result;
}

Work put_work(bool ours, size_t value_bytes) {
  Work work;
  work.method = ours ? kKvPut : kEtcdPut;
  // Generating values is not what is measured: a few are made before and used in turn.
  auto values = std::make_shared<std::vector<std::string>>();
  for (uint64_t i = 0; i < 64; ++i) values->push_back(value_of(i, value_bytes));
  work.request = [ours, values](uint64_t i) {
    const std::string& value = (*values)[i % values->size()];
    return ours ? kv_put(key_of(i), value) : etcd_put(key_of(i), value);
  };
  // Ours: the revision. Etcd's: the header with it.
  work.verify = [ours](uint64_t, std::string_view reply) {
    return ours ? varint_field(reply, 1) > 0 : !bytes_field(reply, 1).empty();
  };
  return work;
}

Work get_work(bool ours, uint64_t keys, const std::string& level, size_t value_bytes) {
  Work work;
  work.method = ours ? kKvGet : kEtcdRange;
  work.consistency = ours ? level : "";
  const bool serializable = level != "linearizable";
  // A large odd step visits the keys in no order.
  const auto key = [keys](uint64_t i) { return i * 7'919 % keys; };
  work.request = [ours, key, serializable](uint64_t i) {
    return ours ? kv_get(key_of(key(i))) : etcd_get(key_of(key(i)), serializable);
  };
  work.verify = [ours, key, value_bytes](uint64_t i, std::string_view reply) {
    constexpr uint32_t kEtcdKvs = 2, kEtcdKey = 1, kEtcdValue = 5, kKey = 1, kValue = 2;
    const std::string_view pair = ours ? reply : bytes_field(reply, kEtcdKvs);
    return bytes_field(pair, ours ? kKey : kEtcdKey) == key_of(key(i)) &&
           bytes_field(pair, ours ? kValue : kEtcdValue).size() == value_bytes;
  };
  return work;
}

Status fill(Side& side, uint64_t keys, size_t value_bytes, size_t batch, uint64_t first) {
  Work work;
  work.method = side.ours ? kKvTxn : kEtcdTxn;
  work.request = [&, ours = side.ours](uint64_t i) {
    std::vector<std::pair<std::string, std::string>> pairs;
    const uint64_t begin = first + i * batch;
    for (uint64_t k = begin; k < std::min<uint64_t>(keys, begin + batch); ++k) {
      pairs.emplace_back(key_of(k), value_of(k, value_bytes));
    }
    return ours ? kv_put_many(pairs) : etcd_put_many(pairs);
  };
  work.verify = [](uint64_t, std::string_view reply) { return varint_field(reply, 2) == 1 || !reply.empty(); };
  const uint64_t calls = (keys - first + batch - 1) / batch;
  const uint64_t next = std::exchange(side.next, 0);
  const LoadResult result = side.run(work, {.in_flight = 16, .operations = calls, .deadline_ms = 60'000});
  side.next = std::max(next, keys);
  if (result.ok == calls) return Status::ok();
  return Status(Code::kUnavailable, "BENCH_FAILED",
                fmt::format("{} of {} transactions were acknowledged: {}{}", result.ok, calls, result.first_error,
                            result.first_shed));
}

Result<std::unique_ptr<Duel>> Duel::start(const Context& context, const UccpClusterOptions& options) {
  auto duel = std::make_unique<Duel>();
  UCCP_TRY(duel->uccp, UccpCluster::start(context, options));
  duel->ours.cluster = duel->uccp.get();
  auto etcd = EtcdCluster::start(context, *duel->uccp, options.places);
  if (etcd) duel->etcd = std::move(*etcd);
  else duel->missing = etcd.error().message();
  if (!duel->missing.empty()) context.say(duel->missing);
  duel->theirs.cluster = duel->etcd.get();
  duel->theirs.ours = false;
  return duel;
}

Status Duel::connect(Side::Endpoints endpoints, int connections) {
  UCCP_RETURN_IF_ERROR(ours.connect(endpoints, connections));
  return etcd ? theirs.connect(endpoints, connections) : Status::ok();
}

void Duel::describe(Row& row, const std::string& settings) const {
  row.peer_name = "etcd";
  row.peer_version = etcd ? etcd->version() : "";
  row.peer_required = true;
  row.settings = settings + fmt::format(", {} nodes on loopback, mutual TLS 1.3", uccp->size()) +
                 fmt::format(", {} B values", kValueBytes);
}

void note_failures(Row& row, const LoadResult& result, bool ours) {
  row.verified += result.ok;
  const uint64_t failed = result.failed + result.shed + result.expired;
  if (failed == 0) return;
  row.problem = fmt::format("{} failed calls{}: {}", failed, ours ? "" : " of the peer",
                            result.first_error.empty() ? result.first_shed : result.first_error);
}

}  // namespace uccp::bench
