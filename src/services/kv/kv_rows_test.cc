// The bytes of the rows: docs/formats/state.md. What is stored must stay readable, so these never change.
#include "services/kv/kv_rows.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "services/kv/kv_events.h"

namespace uccp::kv {
namespace {

const machine::Scope kScope{"t", "n"};

TEST(KvRows, Golden) {
  EXPECT_EQ(to_hex(encode_head({.revision = 300,
                                .compacted = 7,
                                .swept = 8,
                                .keys = 2,
                                .bytes = 10,
                                .history_bytes = 20,
                                .leases = 1,
                                .bytes_max = 1000,
                                .keys_max = 3,
                                .leases_max = 4})),
            "01ac020708020a1401e8070304");
  EXPECT_EQ(to_hex(encode_version({.mod = 300, .create = 299, .version = 2, .lease = 0, .value = "v"})),
            "01ac02010276");
  EXPECT_EQ(to_hex(encode_version({.mod = 5, .create = 5, .version = 1, .lease = 200, .value = ""})), "21050001c801");
  EXPECT_EQ(to_hex(encode_tombstone()), "11");
  EXPECT_EQ(to_hex(encode_revision({.kind = ChangeKind::kPut, .previous = 0, .key = "a"})), "110061");
  EXPECT_EQ(to_hex(encode_revision({.kind = ChangeKind::kDelete, .previous = 300, .key = "a"})), "21ac0261");
  EXPECT_EQ(to_hex(encode_lease({.lease = 0x10001, .ttl_ms = 300, .keys = 1, .granted = {5}})),
            "010000000000010001ac02010000000000000005");
  EXPECT_EQ(to_hex(head_key(kScope)),
            "0050"
            "740001"
            "6e0001");
  EXPECT_EQ(to_hex(key_key(kScope, std::string_view("a\0", 2))),
            "0051"
            "740001"
            "6e0001"
            "6100");
  EXPECT_EQ(to_hex(history_key(kScope, std::string_view("a\0", 2), 1)),
            "0052"
            "740001"
            "6e0001"
            "6100ff0001"
            "fffffffffffffffe");
  EXPECT_EQ(to_hex(revision_key(kScope, 2, 3)),
            "0053"
            "740001"
            "6e0001"
            "0000000000000002"
            "00000003");
  EXPECT_EQ(to_hex(lease_row_key(kScope, 9)),
            "0054"
            "740001"
            "6e0001"
            "0000000000000009");
  EXPECT_EQ(to_hex(lease_key_key(kScope, 9, "a")),
            "0055"
            "740001"
            "6e0001"
            "0000000000000009"
            "61");
}

TEST(KvRows, WhatIsWrittenIsRead) {
  const Head head = decode_head(encode_head({.revision = 9, .compacted = 4, .swept = 5, .keys = 1, .bytes = 2}));
  EXPECT_EQ(head.revision, 9u);
  EXPECT_EQ(head.swept, 5u);
  const std::string row = encode_version({.mod = 9, .create = 4, .version = 3, .lease = -1, .value = "text"});
  const auto version = decode_version(row);
  ASSERT_TRUE(version);
  EXPECT_EQ(version->create, 4u);
  EXPECT_EQ(version->lease, -1);
  EXPECT_EQ(version->value, "text");
  EXPECT_FALSE(decode_version(encode_tombstone()));
  std::string payload;
  append_event(payload, ChangeKind::kPut, "a", row, "");
  append_event(payload, ChangeKind::kDelete, "b", "", row);
  const auto events = decode_events(payload);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].kind, ChangeKind::kDelete);
  EXPECT_EQ(events[1].before, row);
}

TEST(KvRows, RangesAreWhatTheRequestSays) {
  const auto contains = [](const KeyRange& range) {
    std::string found;
    for (const char* key : {"a", "ab", "b", "c"}) {
      if (range.contains(key)) found += std::string(key) + " ";
    }
    return found;
  };
  EXPECT_EQ(contains(*key_range("a", "", "")), "a ");
  EXPECT_EQ(contains(*key_range("a", "b", "")), "a ab ");
  EXPECT_EQ(contains(*key_range("ab", std::string_view("\0", 1), "")), "ab b c ");
  EXPECT_EQ(contains(*key_range("", "", "a")), "a ab ");
  EXPECT_EQ(contains(*key_range("ab", "", "a")), "ab ");
  EXPECT_EQ(contains(*key_range("", "", "")), "a ab b c ");
  EXPECT_EQ(contains(*key_range("c", "a", "")), "");
  EXPECT_TRUE(key_range("c", "a", "")->empty());
  EXPECT_EQ(key_range("b", "", "a").error().reason(), "RANGE_INVALID");
}

}  // namespace
}  // namespace uccp::kv
