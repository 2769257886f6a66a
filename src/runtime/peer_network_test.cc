#include "runtime/peer_network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>

#include "runtime/loop.h"
#include "runtime/openssl_types.h"
#include "runtime/peer_frame.h"
#include "runtime/real_clock.h"
#include "runtime/test_support.h"
#include "runtime/tls.h"

namespace uccp::runtime {
namespace {

using testing::Watched;

const RealClock real_clock;

PemIdentity node_identity(const PemIdentity& ca, const std::string& cluster, uint64_t id) {
  return issue_certificate(ca,
                           {.common_name = "node-" + std::to_string(id),
                            .uris = {node_uri(cluster, NodeId(id))},
                            .use = CertificateUse::kServerAndClient},
                           real_clock.wall())
      .value();
}

struct Received {
  std::vector<std::pair<uint64_t, std::string>> frames;
  int downs = 0;
};

// A node with its own loop.
struct Node {
  Node(uint64_t number, const PemIdentity& ca, PeerNetworkOptions options)
      : id(number), loop(real_clock, {.sockets = true}) {
    options.self = NodeId(number);
    if (options.cluster_id.empty()) options.cluster_id = "c1";
    options.listen_host = "127.0.0.1";
    options.ca_pem = ca.certificate_pem;
    options.backoff_ms_min = 2;
    options.backoff_ms_max = 20;
    if (options.identity.key_pem.empty()) options.identity = node_identity(ca, options.cluster_id, number);
    network = std::make_unique<PeerNetwork>(std::move(options), loop, metrics, number);
    const auto bound = network->listen();
    EXPECT_TRUE(bound) << bound.error().to_string();
    port = bound.value_or(0);
    loop.start("node");
    network->start(
        [this](NodeId from, std::string frame) {
          received.change([&](Received& r) { r.frames.emplace_back(from.value, std::move(frame)); });
        },
        [this](NodeId) { received.change([](Received& r) { ++r.downs; }); });
  }
  ~Node() {
    network->stop();
    loop.stop();
  }

  PeerAddress address() const { return {"127.0.0.1", port}; }
  bool wait_connected(uint64_t peer, bool wanted = true) const {
    for (int i = 0; i < 30'000; ++i) {
      if (network->connected(NodeId(peer)) == wanted) return true;
      ::usleep(1000);
    }
    return false;
  }
  bool wait_metric(const std::string& name, const Labels& labels, double at_least) {
    for (int i = 0; i < 30'000; ++i) {
      if (metrics.value(name, labels) >= at_least) return true;
      ::usleep(1000);
    }
    return false;
  }

  const uint64_t id;
  MetricsRegistry metrics;
  Loop loop;
  uint16_t port = 0;
  Watched<Received> received;
  std::unique_ptr<PeerNetwork> network;
};

void join(std::initializer_list<Node*> nodes) {
  std::map<NodeId, PeerAddress> peers;
  for (const Node* node : nodes) peers.emplace(NodeId(node->id), node->address());
  for (Node* node : nodes) node->network->set_peers(peers);
}

class PeerNetworkTest : public ::testing::Test {
 protected:
  PemIdentity ca = create_ca("cluster CA", 1, real_clock.wall()).value();
};

TEST_F(PeerNetworkTest, FramesOfALaneArriveInOrderFromTheAuthenticatedSender) {
  Node a(1, ca, {});
  Node b(2, ca, {});
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  ASSERT_TRUE(b.wait_connected(1));
  for (int i = 0; i < 500; ++i) a.network->send(NodeId(2), NetworkLane::kControl, std::to_string(i));
  b.network->send(NodeId(1), NetworkLane::kBulk, std::string(3 << 20, 'z'));
  ASSERT_TRUE(b.received.wait([](const Received& r) { return r.frames.size() == 500; }));
  const Received at_b = b.received.get();
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(at_b.frames[static_cast<size_t>(i)], std::make_pair(uint64_t{1}, std::to_string(i)));
  }
  ASSERT_TRUE(a.received.wait([](const Received& r) { return r.frames.size() == 1; }));
  EXPECT_EQ(a.received.get().frames[0].second.size(), size_t{3 << 20});
}

TEST_F(PeerNetworkTest, SendingToAnUnknownOrUnreachablePeerDropsTheFrame) {
  Node a(1, ca, {});
  a.network->send(NodeId(9), NetworkLane::kControl, "x");
  a.network->set_peers({{NodeId(9), {"127.0.0.1", 1}}});
  a.network->send(NodeId(9), NetworkLane::kControl, "x");
  EXPECT_TRUE(a.wait_metric("uccp_peer_frames_dropped_total", {{"reason", "unreachable"}}, 2));
  EXPECT_FALSE(a.network->connected(NodeId(9)));
}

TEST_F(PeerNetworkTest, AFrameAboveTheLimitIsDroppedAtItsSender) {
  Node a(1, ca, {});
  Node b(2, ca, {});
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  a.network->send(NodeId(2), NetworkLane::kBulk, std::string((32 << 20) + 1, 'x'));
  EXPECT_EQ(a.metrics.value("uccp_peer_frames_dropped_total", {{"reason", "too_large"}}), 1);
  a.network->send(NodeId(2), NetworkLane::kBulk, "after");
  EXPECT_TRUE(b.received.wait([](const Received& r) { return r.frames.size() == 1; }));
}

TEST_F(PeerNetworkTest, APeerThatWentAwayIsReportedAndDialledAgain) {
  Node a(1, ca, {});
  auto b = std::make_unique<Node>(2, ca, PeerNetworkOptions{});
  join({&a, b.get()});
  ASSERT_TRUE(a.wait_connected(2));
  const uint16_t port = b->port;
  b.reset();
  ASSERT_TRUE(a.received.wait([](const Received& r) { return r.downs == 1; }));
  EXPECT_TRUE(a.wait_connected(2, false));
  Node again(2, ca, {.listen_port = port});
  join({&a, &again});
  ASSERT_TRUE(a.wait_connected(2));
  a.network->send(NodeId(2), NetworkLane::kControl, "back");
  EXPECT_TRUE(again.received.wait([](const Received& r) { return r.frames.size() == 1; }));
}

TEST_F(PeerNetworkTest, APeerThatDoesNotAnswerIsDialledWhereElseItMayBe) {
  Node a(1, ca, {});
  Node b(2, ca, {});
  const PeerAddress nobody{"127.0.0.1", 1};
  b.network->set_peers({{NodeId(1), nobody}}, {{NodeId(1), a.address()}});
  a.network->set_peers({{NodeId(2), nobody}}, {{NodeId(2), b.address()}});
  ASSERT_TRUE(a.wait_connected(2));
  ASSERT_TRUE(b.wait_connected(1));
  // The connection stays when it turns out that this is its address.
  a.network->set_peers({{NodeId(2), b.address()}}, {{NodeId(2), nobody}});
  a.network->send(NodeId(2), NetworkLane::kControl, "still here");
  EXPECT_TRUE(b.received.wait([](const Received& r) { return r.frames.size() == 1; }));
  EXPECT_EQ(a.received.get().downs, 0);
  EXPECT_EQ(b.received.get().downs, 0);
}

TEST_F(PeerNetworkTest, PeersCanMoveAndLeaveAtRunTime) {
  Node a(1, ca, {});
  Node b(2, ca, {});
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  ASSERT_TRUE(b.wait_connected(1));
  a.network->set_peers({});
  ASSERT_TRUE(b.received.wait([](const Received& r) { return r.downs >= 1; })) << "the leaver's link is closed";
  EXPECT_TRUE(a.wait_connected(2, false));
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  ASSERT_TRUE(b.wait_connected(1));
}

TEST_F(PeerNetworkTest, ACertificateOfAnotherNodeClusterOrAuthorityIsRefused) {
  const PemIdentity other_ca = create_ca("other CA", 1, real_clock.wall()).value();
  Node a(1, ca, {});
  Node stranger(2, other_ca, {});
  Node other_cluster(3, ca, {.cluster_id = "c2"});
  join({&a, &stranger, &other_cluster});
  EXPECT_TRUE(a.wait_metric("uccp_peer_connections_rejected_total", {{"reason", "identity"}}, 2));
  for (const uint64_t peer : {2, 3}) EXPECT_FALSE(a.network->connected(NodeId(peer)));
  EXPECT_FALSE(stranger.network->connected(NodeId(1)));
  EXPECT_FALSE(other_cluster.network->connected(NodeId(1)));
}

TEST_F(PeerNetworkTest, ANodeNeedsACertificateThatNamesIt) {
  Loop loop(real_clock, {.sockets = true});
  MetricsRegistry metrics;
  PeerNetworkOptions options{.self = NodeId(1), .cluster_id = "c1", .listen_host = "127.0.0.1"};
  options.identity = node_identity(ca, "c1", 2);
  options.ca_pem = ca.certificate_pem;
  PeerNetwork network(std::move(options), loop, metrics, 1);
  EXPECT_EQ(network.listen().error().reason(), "NODE_CERTIFICATE_MISMATCH");
}

TEST_F(PeerNetworkTest, AKnownIdWithAnotherDataDirectoryIsRefused) {
  PeerNetworkOptions careful;
  careful.admit = [](NodeId, Incarnation incarnation) { return incarnation == Incarnation(7); };
  Node a(1, ca, std::move(careful));
  Node b(2, ca, {.incarnation = Incarnation(8)});
  Node c(3, ca, {.incarnation = Incarnation(7)});
  join({&a, &b, &c});
  EXPECT_TRUE(c.wait_connected(1));
  EXPECT_TRUE(a.wait_metric("uccp_peer_connections_rejected_total", {{"reason", "identity"}}, 1));
  EXPECT_FALSE(b.network->connected(NodeId(1)));
}

TEST_F(PeerNetworkTest, ReadingPausesWhileTheLoopIsBehindAndGoesOnAfterwards) {
  Watched<bool> open;
  Node a(1, ca, {});
  Node b(2, ca, {});
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  Watched<bool> busy;
  b.loop.post([&] {
    busy.change([](bool& value) { value = true; });
    open.wait([](bool value) { return value; });
  });
  ASSERT_TRUE(busy.wait([](bool value) { return value; }));
  for (int i = 0; i < 60; ++i) a.network->send(NodeId(2), NetworkLane::kBulk, std::string(1 << 20, 'x'));
  EXPECT_EQ(b.metrics.value("uccp_peer_frames_received_total"), 0);
  open.change([](bool& value) { value = true; });
  EXPECT_TRUE(b.received.wait([](const Received& r) { return r.frames.size() == 60; }));
}

TEST_F(PeerNetworkTest, AFullQueueDropsNewFramesAndCountsThem) {
  Watched<bool> open;
  Node a(1, ca, {.bulk_queue_bytes_max = 1 << 20});
  Node b(2, ca, {});
  join({&a, &b});
  ASSERT_TRUE(a.wait_connected(2));
  b.loop.post([&] { open.wait([](bool value) { return value; }); });
  for (int i = 0; i < 100; ++i) a.network->send(NodeId(2), NetworkLane::kBulk, std::string(512 << 10, 'x'));
  EXPECT_GT(a.metrics.value("uccp_peer_frames_dropped_total", {{"reason", "queue_full"}}), 0);
  open.change([](bool& value) { value = true; });
}

// A peer of the test's own making that holds a good certificate and breaks the protocol.
class RawPeer {
 public:
  RawPeer(const PemIdentity& ca, const PemIdentity& identity, uint16_t port) {
    const TlsContext context = make_client_context({identity, ca.certificate_pem}).value();
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    ssl_.reset(SSL_new(context.get()));
    SSL_set_fd(ssl_.get(), socket_);
    EXPECT_EQ(SSL_connect(ssl_.get()), 1);
  }
  ~RawPeer() {
    ssl_.reset();
    ::close(socket_);
  }
  void send(std::string_view bytes) { SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())); }
  bool closed_by_peer() {
    char buffer[4096];
    while (SSL_read(ssl_.get(), buffer, sizeof buffer) > 0) {}
    take_openssl_errors();
    return true;
  }

 private:
  int socket_ = -1;
  std::unique_ptr<SSL, openssl::Free<SSL_free>> ssl_;
};

std::string hello(const std::string& cluster, uint64_t from, uint64_t to) {
  std::string out;
  append_peer_piece(out, PeerFrameKind::kHello, false,
                    encode_peer_hello({cluster, NodeId(from), NodeId(to), Incarnation()}));
  return out;
}

TEST_F(PeerNetworkTest, ANodeCannotTakeTheIdOfAnother) {
  Node a(1, ca, {});
  a.network->set_peers({{NodeId(2), {"127.0.0.1", 1}}, {NodeId(3), {"127.0.0.1", 1}}});
  const PemIdentity two = node_identity(ca, "c1", 2);
  RawPeer thief(ca, two, a.port);
  thief.send(hello("c1", 3, 1));
  EXPECT_TRUE(thief.closed_by_peer());
  RawPeer lost(ca, two, a.port);
  lost.send(hello("c1", 2, 4));
  EXPECT_TRUE(lost.closed_by_peer());
  RawPeer unknown(ca, node_identity(ca, "c1", 5), a.port);
  unknown.send(hello("c1", 5, 1));
  EXPECT_TRUE(unknown.closed_by_peer());
  const PemIdentity client =
      issue_certificate(ca, {.common_name = "u", .uris = {principal_uri("default", "u")}}, real_clock.wall()).value();
  RawPeer user(ca, client, a.port);
  user.send(hello("c1", 2, 1));
  EXPECT_TRUE(user.closed_by_peer());
  EXPECT_EQ(a.metrics.value("uccp_peer_connections_rejected_total", {{"reason", "identity"}}), 4);
}

TEST_F(PeerNetworkTest, GarbageClosesTheConnectionAndIsCounted) {
  Node a(1, ca, {.frame_bytes_max = 1000});
  a.network->set_peers({{NodeId(2), {"127.0.0.1", 1}}});
  const PemIdentity two = node_identity(ca, "c1", 2);
  std::string too_large;
  append_peer_piece(too_large, PeerFrameKind::kBulk, false, std::string(1001, 'x'));
  double expected = 0;
  for (const std::string& bytes : {std::string("garbage that is long enough"), too_large, hello("c1", 2, 1)}) {
    RawPeer peer(ca, two, a.port);
    peer.send(hello("c1", 2, 1));
    peer.send(bytes);
    EXPECT_TRUE(peer.closed_by_peer());
    EXPECT_TRUE(a.wait_metric("uccp_peer_connections_rejected_total", {{"reason", "garbage"}}, ++expected));
  }
  EXPECT_TRUE(a.received.get().frames.empty());
}

TEST_F(PeerNetworkTest, AConnectionThatSaysNothingIsClosed) {
  Node a(1, ca, {.handshake_timeout_ms = 50});
  RawPeer silent(ca, node_identity(ca, "c1", 2), a.port);
  EXPECT_TRUE(silent.closed_by_peer());
}

}  // namespace
}  // namespace uccp::runtime
