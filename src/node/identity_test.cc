#include "node/identity.h"

#include <gtest/gtest.h>

#include "storage/memory/memory_kv.h"

namespace uccp::node {
namespace {

TEST(Identity, AStateBelongsToTheDirectoryThatWroteItFirst) {
  storage::MemoryKv kv;
  const storage::StoreIdentity own{"c", NodeId(1), Incarnation(7)};
  ASSERT_TRUE(claim_state(kv, "/data/state", own).is_ok());
  EXPECT_TRUE(claim_state(kv, "/data/state", own).is_ok());
  for (const storage::StoreIdentity& other :
       {storage::StoreIdentity{"d", NodeId(1), Incarnation(7)}, storage::StoreIdentity{"c", NodeId(2), Incarnation(7)},
        storage::StoreIdentity{"c", NodeId(1), Incarnation(8)}}) {
    const Status refused = claim_state(kv, "/data/state", other);
    EXPECT_EQ(refused.reason(), "STATE_OF_ANOTHER_NODE") << refused.to_string();
    EXPECT_NE(refused.message().find("/data/state"), std::string::npos);
  }
}

}  // namespace
}  // namespace uccp::node
