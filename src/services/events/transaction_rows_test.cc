// The bytes of rows of transactions and of what waits: docs/formats/state.md. What is stored must stay readable, so
// these never change.
#include "services/events/transaction_rows.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::events {
namespace {

const machine::Scope kScope{"t", "n"};

std::string hex(const google::protobuf::MessageLite& row) { return to_hex(row.SerializeAsString()); }
std::string hex_key(machine::TableId table, const machine::Scope& scope, const std::string& key) {
  return to_hex(machine::table_key::make(table, scope, key));
}

TEST(TransactionRows, GoldenKeys) {
  EXPECT_EQ(hex_key(kTransactionTable, kScope, transaction_key(300)), "00d07400016e0001000000000000012c");
  EXPECT_EQ(hex_key(kTransactionProducerTable, kScope, "p"), "00d17400016e000170");
  EXPECT_EQ(hex_key(kTransactionCountTable, {"t", ""}, "open"), "00d374000100016f70656e");
  EXPECT_EQ(hex_key(kTransactionCountTable, {}, "last"), "00d3000100016c617374");
  EXPECT_EQ(hex_key(kUnsettledTable, {}, transaction_key(300)), "00d800010001000000000000012c");
  EXPECT_EQ(hex_key(kGuardTable, kScope, "p"), "00d57400016e000170");
  EXPECT_EQ(hex_key(kStagedTable, kScope, staged_key(300, 17, 2)),
            "00d67400016e0001000000000000012c000000000000001100000002");
  EXPECT_EQ(hex_key(kHeldTable, kScope, held_key(300, 9, {7, 1})),
            "00d77400016e0001000000000000012c0000000000000009000000000000000700000001");
}

TEST(TransactionRows, GoldenRowsOfTheCoordinator) {
  TransactionRow row;
  row.set_number(300);
  row.set_producer_id("p");
  row.set_epoch(2);
  row.set_state(TransactionRow::STATE_ABORTING);
  row.set_reason(TransactionRow::REASON_FENCED);
  row.add_groups(0);
  row.add_groups(1);
  row.set_events(3);
  row.set_bytes(4);
  row.set_acks(5);
  row.set_begin_us(6);
  row.set_timeout_ms(7);
  row.set_end_us(8);
  row.set_lease(9);
  EXPECT_EQ(hex(row), "08ac02120170180220042803320200013803400448055006580760086809");
  internal::v1::TransactionProducerRow producer;
  producer.set_epoch(2);
  producer.set_number(300);
  producer.set_before(299);
  producer.set_seen_ms(5);
  EXPECT_EQ(hex(producer), "080210ac0218ab022005");
  internal::v1::TransactionUnsettledRow unsettled;
  unsettled.set_tenant("t");
  unsettled.set_name_space("n");
  EXPECT_EQ(hex(unsettled), "0a017412016e");
}

TEST(TransactionRows, GoldenRowsOfAGroupThatTakesPart) {
  TransactionGuardRow guard;
  guard.set_number(300);
  guard.set_ended(true);
  guard.set_seen_ms(5);
  EXPECT_EQ(hex(guard), "08ac0210011805");
  TransactionStagedRow staged;
  staged.set_topic(7);
  staged.set_partition(1);
  staged.add_heads("h");
  staged.add_sizes(200);
  EXPECT_EQ(hex(staged), "080710011a01682202c801");
  staged.set_log_index(400);
  staged.set_batch(3);
  EXPECT_EQ(hex(staged), "080710011a01682202c8012890033003");
  TransactionHeldRow held;
  held.add_offsets(3);
  held.add_offsets(300);
  held.set_moves(2);
  held.set_producer_id("p");
  EXPECT_EQ(hex(held), "0a0303ac0210021a0170");
}

TEST(TransactionRows, GoldenRowsThatTransactionsChange) {
  internal::v1::BusPosition position;
  position.set_offset(3);
  position.set_epoch(4);
  position.add_settled(5);
  position.set_moves(6);
  EXPECT_EQ(hex(position), "080320043201053806");
  internal::v1::BusScheduledRow scheduled;
  scheduled.set_log_index(17);
  scheduled.set_batch(1);
  scheduled.set_place(2);
  scheduled.set_bytes(200);
  scheduled.set_events(3);
  scheduled.set_key("k");
  EXPECT_EQ(hex(scheduled), "08111001180220c801280332016b");
}

TEST(TransactionRows, AStagedBatchLiesWhereItsKeySaysUntilItIsStoredAgain) {
  const std::string key = staged_key(300, 17, 2);
  TransactionStagedRow row;
  EXPECT_EQ(staged_place(key, row), (StagedPlace{17, 2}));
  row.set_log_index(400);
  EXPECT_EQ(staged_place(key, row), (StagedPlace{400, 0}));
}

}  // namespace
}  // namespace uccp::events
