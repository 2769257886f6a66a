#include "sim/cluster/register_client.h"

#include <algorithm>

#include "base/bytes.h"

namespace uccp::sim {

namespace {

constexpr int64_t kReadsEveryUs = 40'000;

}  // namespace

RegisterClient::RegisterClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "registers-" + std::to_string(number)),
      first_value_((number + 1) * kValuesOfAClient),
      left_(operations),
      reads_only_(operations == 0) {
  if (reads_only_) stay();
}

void RegisterClient::start() {
  if (chance(0.7)) return open_session();
  after_us(below(10'000), [this] { next(); });
}

void RegisterClient::open_session() {
  write(kCoreGroup, envelope("machine.open_session", ""), [this](Result<machine::Applied> result, int64_t) {
    if (result) use_session(SessionId(ByteReader(result->response).u64()));
    next();
  });
}

void RegisterClient::next() {
  if (reads_only_ ? cluster_.healed() : left_ == 0) return;
  const std::string key = "k" + std::to_string(below(static_cast<int64_t>(cluster_.options().register_keys)));
  const int64_t choice = below(10);
  if (choice < 4 || reads_only_) get(key);
  else change(key, choice < 7);
}

// Linearizable reads and those under a lease belong to the history; what the others may show follows from their index.
void RegisterClient::get(const std::string& key) {
  const int64_t choice = below(10);
  machine::ReadLevel level;
  if (choice >= (reads_only_ ? 2 : 5)) level.kind = machine::ReadLevel::Kind::kLease;
  if (choice >= 7) level = machine::ReadLevel::bounded(20 + below(chance(0.3) ? 3000 : 300));
  if (choice >= 9) level = {.kind = machine::ReadLevel::Kind::kSession, .token = {{kCoreGroup, token_}}};
  const auto query = [key](const machine::GroupView& state) { return std::to_string(read_register(state, key)); };
  read(kCoreGroup, level, query, [this, key, level](Result<machine::Applied> result, int64_t called_us) {
    using Kind = machine::ReadLevel::Kind;
    Checkers& checkers = cluster_.checkers();
    if (!result) {
      checkers.violations.add("reads", name() + ": " + result.error().to_string());
      return completed();
    }
    RegisterOperation operation;
    operation.called_us = called_us;
    operation.returned_us = cluster_.now_us();
    operation.value = std::stoull(result->response);
    checkers.values.read(name(), key, result->index, operation.value);
    switch (level.kind) {
      case Kind::kLinearizable:
      case Kind::kLease:
        last_seen_[key] = operation.value;
        checkers.registers.add(key, operation);
        checkers.order.add({called_us, cluster_.now_us(), result->index, false});
        break;
      case Kind::kBounded: checkers.freshness.bounded(kCoreGroup, called_us, level.bound_ms, result->index); break;
      case Kind::kSession: checkers.freshness.session(kCoreGroup, level.token.at(kCoreGroup), result->index); break;
    }
    token_ = std::max(token_, result->index);
    completed();
  });
}

void RegisterClient::change(const std::string& key, bool compare) {
  RegisterOperation operation;
  operation.kind = compare ? RegisterOperation::Kind::kCompareAndSet : RegisterOperation::Kind::kPut;
  operation.expected = compare ? last_seen_[key] : 0;
  operation.value = first_value_ + ++values_;
  const RegisterCommand command{key, operation.expected, operation.value};
  write(kCoreGroup, envelope(compare ? "registers.set" : "registers.put", encode_command(command)),
        [this, key, operation](Result<machine::Applied> result, int64_t called_us) mutable {
          operation.called_us = called_us;
          if (result) {
            operation.returned_us = cluster_.now_us();
            operation.done = result->response == "1";
          } else if (result.error().code() != Code::kOutcomeUnknown) {
            cluster_.checkers().violations.add("writes", name() + ": " + result.error().to_string());
          }
          if (operation.done) {
            last_seen_[key] = operation.value;
            token_ = std::max(token_, result->index);
            cluster_.checkers().durability.acknowledged(kCoreGroup, "registers:" + std::to_string(operation.value),
                                                        result->index);
            // A repetition is answered at an index of its own.
            Checkers& checkers = cluster_.checkers();
            const LogIndex index = checkers.values.index_of(key, operation.value);
            checkers.order.add({called_us, cluster_.now_us(), index, true});
            checkers.freshness.acknowledged(kCoreGroup, result->index, cluster_.now_us());
          }
          cluster_.checkers().registers.add(key, operation);
          completed();
        });
}

void RegisterClient::completed() {
  if (reads_only_) return after_us(below(kReadsEveryUs), [this] { next(); });
  --left_;
  after_us(below(chance(0.05) ? 100'000 : 3'000), [this] { next(); });
}

}  // namespace uccp::sim
