#include "services/events/transaction_rows.h"

#include "base/bytes.h"
#include "base/check.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

// Crockford's base 32.
constexpr std::string_view kDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::string_view kPrefix = "txn_";
constexpr size_t kIdDigits = 13;

}  // namespace

std::string transaction_key(uint64_t number) { return ByteWriter().u64(number).take(); }

std::string staged_key(uint64_t number, uint64_t log_index, uint32_t batch) {
  return ByteWriter().u64(number).u64(log_index).u32(batch).take();
}

std::string held_key(uint64_t number, uint64_t subscription, PartitionId id) {
  return ByteWriter().u64(number).u64(subscription).u64(id.topic).u32(id.partition).take();
}

StagedPlace staged_place(std::string_view key, const TransactionStagedRow& row) {
  if (row.log_index() != 0) return {row.log_index(), row.batch()};
  ByteReader in(key);
  in.u64();
  StagedPlace place{.log_index = in.u64(), .batch = in.u32()};
  UCCP_CHECK(in.at_end(), "the key of a staged batch is readable");
  return place;
}

void scan_held(const machine::KeyReader& state, const machine::Scope& scope, uint64_t subscription,
               const std::function<void(const Held&)>& visit) {
  kHeld.scan(state, scope, "", "", [&](std::string_view key, TransactionHeldRow row) {
    ByteReader in(key);
    Held held{.number = in.u64(), .id = {}, .row = std::move(row)};
    const uint64_t of = in.u64();
    held.id.topic = in.u64();
    held.id.partition = in.u32();
    UCCP_CHECK(in.at_end(), "the key of held deliveries is readable");
    if (of != subscription) return true;
    const auto position = kPositions.get(state, scope, position_key(held.id, subscription));
    if (position && position->moves() == held.row.moves()) visit(held);
    return true;
  });
}

std::string transaction_id(uint64_t number) {
  std::string id(kPrefix);
  for (size_t i = kIdDigits; i-- > 0;) id += kDigits[number >> (5 * i) & 31];
  return id;
}

std::optional<uint64_t> transaction_number(std::string_view id) {
  if (!id.starts_with(kPrefix) || id.size() != kPrefix.size() + kIdDigits) return std::nullopt;
  uint64_t number = 0;
  for (const char c : id.substr(kPrefix.size())) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    number = number << 5 | digit;
  }
  // The first digit has bits that a number does not have.
  return transaction_id(number) == id ? std::optional(number) : std::nullopt;
}

v1::Transaction shown_transaction(const machine::Scope& scope, const TransactionRow& row) {
  v1::Transaction out;
  out.set_id(transaction_id(row.number()));
  out.set_namespace_(scope.name_space);
  out.set_producer_id(row.producer_id());
  out.set_producer_epoch(row.epoch());
  out.set_status(static_cast<v1::TransactionStatus>(row.state()));
  switch (row.reason()) {
    case TransactionRow::REASON_ASKED: out.set_status_reason("ASKED"); break;
    case TransactionRow::REASON_EXPIRED: out.set_status_reason("EXPIRED"); break;
    case TransactionRow::REASON_FENCED: out.set_status_reason("FENCED"); break;
    default: break;
  }
  out.set_events(row.events());
  out.set_size(row.bytes());
  out.set_acks(row.acks());
  services::set_wall(out.mutable_create_time(), {row.begin_us()});
  services::set_wall(out.mutable_expire_time(), {row.begin_us() + row.timeout_ms() * 1000});
  if (row.end_us() > 0) services::set_wall(out.mutable_end_time(), {row.end_us()});
  return out;
}

Status transaction_not_found(std::string_view id) {
  return Status(Code::kNotFound, "TRANSACTION_NOT_FOUND",
                "there is no transaction '" + std::string(id) +
                    "': it is not one of this namespace, or its producer has begun two others since")
      .with_resource("transaction", std::string(id));
}

Status transaction_ended(const TransactionRow& row) {
  const std::string id = transaction_id(row.number());
  const auto ended = [&id](std::string reason, const std::string& what) {
    return Status(Code::kFailedPrecondition, std::move(reason), "the transaction '" + id + "' " + what)
        .with_resource("transaction", id);
  };
  const bool committed =
      row.state() == TransactionRow::STATE_COMMITTING || row.state() == TransactionRow::STATE_COMMITTED;
  if (committed) return ended("TRANSACTION_COMMITTED", "is committed; begin another one");
  switch (row.reason()) {
    case TransactionRow::REASON_EXPIRED:
      return ended("TRANSACTION_EXPIRED", "was aborted when its " + std::to_string(row.timeout_ms()) +
                                              " ms were over; begin another one, with a longer timeout");
    case TransactionRow::REASON_FENCED:
      return ended("PRODUCER_FENCED", "was aborted by a newer epoch of its producer '" + row.producer_id() +
                                          "'; this one was replaced and must stop");
    default: return ended("TRANSACTION_ABORTED", "was aborted; begin another one");
  }
}

}  // namespace uccp::events
