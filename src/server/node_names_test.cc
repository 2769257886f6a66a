#include "server/node_names.h"

#include <gtest/gtest.h>

#include "runtime/pki.h"

namespace uccp::server {
namespace {

TEST(NodeNames, APlaceIsAHostAndAPort) {
  EXPECT_EQ(*parse_address("node-1.example.com:50000"), (runtime::PeerAddress{"node-1.example.com", 50000}));
  EXPECT_EQ(*parse_address("10.0.0.1:1"), (runtime::PeerAddress{"10.0.0.1", 1}));
  EXPECT_EQ(*parse_address("[fe80::1%eth0]:65535"), (runtime::PeerAddress{"fe80::1%eth0", 65535}));
  for (const std::string_view wrong : {"", "host", "host:", ":1", "host:0", "host:65536", "host:1x", "host: 1", "::1:1",
                                       "[]:1", "[:1", "[::1:1", "a b:1", "a\n:1", "https://a:1", "user@a:1"}) {
    const auto refused = parse_address(wrong);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().reason(), "CONFIG_INVALID") << wrong;
  }
}

TEST(NodeNames, MembersAreNamedOnce) {
  const auto members = parse_members("n1=a:1,n20=[::1]:2");
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_EQ(members->at(NodeId(20)), (runtime::PeerAddress{"::1", 2}));
  EXPECT_TRUE(parse_members("")->empty());
  for (const std::string_view wrong : {"n1", "1=a:1", "n0=a:1", "n1=a:1,,n2=b:1", "n1=a:1,n1=b:1", "n1=a"})
    EXPECT_FALSE(parse_members(wrong)) << wrong;
}

TEST(NodeNames, ANodeHasOneUri) {
  std::string cluster;
  NodeId node;
  EXPECT_TRUE(parse_node_uri(runtime::node_uri("c1", NodeId(7)), cluster, node));
  EXPECT_EQ(cluster, "c1");
  EXPECT_EQ(node, NodeId(7));
  for (const std::string_view wrong :
       {"spiffe://uccp/cluster/c2/node/0", "spiffe://uccp/cluster/c2/node/08", "spiffe://uccp/cluster/c2/node/n8",
        "spiffe://uccp/cluster//node/8", "spiffe://uccp/cluster/node/8", "spiffe://uccp/cluster/c2/node/8 ",
        "spiffe://other/cluster/c2/node/8", "spiffe://uccp/tenant/c2/principal/node/8"}) {
    EXPECT_FALSE(parse_node_uri(wrong, cluster, node)) << wrong;
  }
  EXPECT_EQ(cluster, "c1") << "nothing is changed by what is refused";
}

}  // namespace
}  // namespace uccp::server
