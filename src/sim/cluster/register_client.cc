#include "sim/cluster/register_client.h"

#include "base/bytes.h"

namespace uccp::sim {

RegisterClient::RegisterClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "registers-" + std::to_string(number)),
      first_value_((number + 1) * 1'000'000),
      left_(operations) {}

void RegisterClient::start() {
  if (chance(0.3)) return open_session();
  after_us(below(10'000), [this] { next(); });
}

void RegisterClient::open_session() {
  write(kCoreGroup, envelope("machine.open_session", ""), [this](Result<machine::Applied> result, int64_t) {
    if (result) use_session(SessionId(ByteReader(result->response).u64()));
    next();
  });
}

void RegisterClient::next() {
  if (left_ == 0) return;
  const std::string key = "k" + std::to_string(below(static_cast<int64_t>(cluster_.options().register_keys)));
  const int64_t choice = below(10);
  if (choice < 4) get(key);
  else change(key, choice < 7);
}

void RegisterClient::get(const std::string& key) {
  const auto query = [key](const machine::GroupView& state) { return std::to_string(read_register(state, key)); };
  read(kCoreGroup, machine::ReadLevel::linearizable(), query,
       [this, key](Result<machine::Applied> result, int64_t called_us) {
         RegisterOperation operation;
         operation.called_us = called_us;
         if (result) {
           operation.value = last_seen_[key] = std::stoull(result->response);
           operation.returned_us = cluster_.now_us();
         } else {
           cluster_.checkers().violations.add("reads", name() + ": " + result.error().to_string());
         }
         completed(key, operation);
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
            cluster_.checkers().durability.acknowledged(kCoreGroup, "registers:" + std::to_string(operation.value),
                                                        result->index);
            if (chance(0.1)) read_own_write(*result);
          }
          completed(key, operation);
        });
}

// A read with the token of a write sees that write, although it need not be linearizable.
void RegisterClient::read_own_write(const machine::Applied& written) {
  machine::ReadLevel level{.kind = machine::ReadLevel::Kind::kSession, .token = {{kCoreGroup, written.index}}};
  const auto query = [](const machine::GroupView& state) { return std::to_string(state.applied().value); };
  try_once(SimCluster::read(kCoreGroup, level, query),
           [this, index = written.index](const Result<machine::Applied>& result, int64_t) {
             if (result && result->index < index) {
               cluster_.checkers().violations.add("session", name() + " wrote at index " + std::to_string(index.value) +
                                                                 " and read at " + std::to_string(result->index.value));
             }
           });
}

void RegisterClient::completed(const std::string& key, const RegisterOperation& operation) {
  const bool useless = operation.unknown() && operation.kind == RegisterOperation::Kind::kGet;
  if (!useless) cluster_.checkers().registers.add(key, operation);
  --left_;
  after_us(below(chance(0.05) ? 100'000 : 3'000), [this] { next(); });
}

}  // namespace uccp::sim
