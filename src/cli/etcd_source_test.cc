#include "cli/etcd_source.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "etcd.pb.h"
#include "storage/bolt_file.h"

namespace uccp::cli {
namespace {

std::string revision(uint64_t main, bool deleted = false) {
  return ByteWriter().u64(main).take() + "_" + ByteWriter().u64(0).take() + (deleted ? "t" : "");
}

std::string pair(const std::string& key, const std::string& value, int64_t lease = 0) {
  etcd::KeyValue kv;
  kv.set_key(key);
  kv.set_value(value);
  kv.set_lease(lease);
  return kv.SerializeAsString();
}

std::string reason(std::string file) {
  const auto source = etcd_snapshot(std::move(file));
  return source ? "" : std::string(source.error().reason());
}

TEST(EtcdSnapshot, TheNewestVersionsComeInOrder) {
  etcd::StoredLease lease;
  lease.set_id(7);
  lease.set_ttl(60);
  const std::string file = storage::write_bolt({{"key",
                                                 {{revision(2), pair("b", "1")},
                                                  {revision(3), pair("a", "1", 7)},
                                                  {revision(4), pair("b", "2")},
                                                  {revision(5), pair("c", "1")},
                                                  {revision(6, true), pair("c", "")}}},
                                                {"lease", {{"7", lease.SerializeAsString()}}}});
  for (const std::string& whole : {file, file + sha256(file)}) {
    const auto source = etcd_snapshot(whole);
    ASSERT_TRUE(source) << source.error().to_string();
    EXPECT_EQ((*source)->revision(), 6);
    const auto pairs = (*source)->read("", "");
    ASSERT_TRUE(pairs);
    ASSERT_EQ(pairs->size(), 2u);
    EXPECT_EQ((*pairs)[0].key, "a");
    EXPECT_EQ((*pairs)[1].value, "2");
    EXPECT_EQ(*(*source)->lease_ttl((*pairs)[0].lease), 60);
    EXPECT_EQ((*source)->read("", "a")->size(), 1u);
    EXPECT_TRUE((*source)->read("", "b")->empty());
  }
}

TEST(EtcdSnapshot, WhatCannotBeOneIsRefused) {
  const std::string good = storage::write_bolt({{"key", {{revision(2), pair("a", "1")}}}});
  EXPECT_EQ(reason(good), "");
  EXPECT_EQ(reason(good + std::string(32, 'x')), "SNAPSHOT_INVALID") << "another file's hash";
  EXPECT_EQ(reason(storage::write_bolt({{"other", {{"k", "v"}}}})), "SNAPSHOT_INVALID");
  EXPECT_EQ(reason(storage::write_bolt({{"key", {{"short", pair("a", "1")}}}})), "SNAPSHOT_INVALID");
  EXPECT_EQ(reason(storage::write_bolt({{"key", {{revision(2), "\xff"}}}})), "SNAPSHOT_INVALID");
  // etcd has no such key, and a reader that goes on behind the last one would begin anew.
  EXPECT_EQ(reason(storage::write_bolt({{"key", {{revision(2), pair("", "1")}}}})), "SNAPSHOT_INVALID");
  EXPECT_EQ(reason("text"), "BOLT_INVALID");
}

}  // namespace
}  // namespace uccp::cli
