// Frames between nodes over TLS 1.3: the real implementation of base/network.h.
//
// Each node dials each of its peers once and sends on that connection; it receives on those that it accepts. All groups
// share them. Both ends show a certificate of the cluster's authority whose URI names cluster and node; it must match
// what the hello claims, so an id cannot be taken by another node. docs/formats/peer_frame.md is the wire format.
// Invariants: frames of one lane arrive in order and at most once; control frames overtake bulk frames, which travel in
// pieces; queues are bounded by bytes, a full queue drops the new frame and counts it; a peer that sends garbage or too
// much loses its connection. What could not be sent when a connection ended is dropped: raft sends again.
// Thread: everything is callable from any thread; all IO, receiver and peer_down run on the thread of the loop given,
// the latter two in a turn of it, so a frame costs no hand-over between threads, and a loop that is behind reads no
// more.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/network.h"
#include "base/peer_trust.h"
#include "base/status.h"
#include "runtime/loop.h"
#include "runtime/pki.h"

namespace uccp::runtime {

struct PeerAddress {
  std::string host;  // name or address
  uint16_t port = 0;

  bool operator==(const PeerAddress&) const = default;
};

struct PeerNetworkOptions {
  NodeId self;
  std::string cluster_id;
  Incarnation incarnation;
  std::string listen_host = "0.0.0.0";
  uint16_t listen_port = 0;  // 0: any; listen() tells which
  PemIdentity identity;      // must name node_uri(cluster_id, self)
  std::string ca_pem;
  // In place of ca_pem, if it is there: with revocations.
  std::shared_ptr<const PeerTrust> trust = nullptr;

  size_t frame_bytes_max = 32u << 20;
  // A lane's queue to one peer.
  size_t control_queue_bytes_max = 8u << 20;
  size_t bulk_queue_bytes_max = 64u << 20;
  // Accepted connections, and those of them that have not said who they are.
  size_t connections_max = 1024;
  size_t handshakes_max = 64;
  int64_t handshake_timeout_ms = 5'000;
  int64_t backoff_ms_min = 50;
  int64_t backoff_ms_max = 2'000;

  // Asked, on the loop, whether a peer with this incarnation may connect. Empty: every one.
  std::move_only_function<bool(NodeId peer, Incarnation incarnation)> admit;
};

class PeerNetwork final : public Network {
 public:
  // `loop`, which needs sockets, and `metrics` must outlive the network; `seed` is for the jitter of reconnects.
  PeerNetwork(PeerNetworkOptions options, Loop& loop, MetricsRegistry& metrics, uint64_t seed);
  ~PeerNetwork() override;

  // Binds the port and returns it. Call it before start(). Errors: invalid ADDRESS_INVALID, failed_precondition
  // ADDRESS_IN_USE, corruption PEM_INVALID, failed_precondition KEY_MISMATCH or NODE_CERTIFICATE_MISMATCH.
  Result<uint16_t> listen();
  // Requires a successful listen().
  void start(Receiver receiver, PeerDown peer_down) override;
  // Frames over frame_bytes_max are dropped, as are those to peers that are not connected.
  void send(NodeId to, NetworkLane lane, std::string frame) override;
  // Nothing is delivered after return on the loop, which closes all connections in one of its next turns. Idempotent.
  void stop();

  // Replaces the peers: connections to those that are gone or have moved are closed, new ones are dialled. An entry for
  // the node itself is ignored. Frames are accepted only from nodes in the map. `elsewhere`: where a peer may be as
  // well; one that does not answer is dialled at both addresses in turn.
  void set_peers(std::map<NodeId, PeerAddress> peers, std::map<NodeId, PeerAddress> elsewhere = {});
  // What new connections show and accept from now on; those that are open stay, unless the peer's certificate is not
  // taken any more. Errors: those of listen() about certificates; the old ones stay in use.
  Status replace_certificates(const PemIdentity& identity, std::shared_ptr<const PeerTrust> trust);
  // Looks at the peers' certificates again: some may have been revoked.
  void check_peers();
  // True while there is a connection on which frames to `peer` can be sent.
  bool connected(NodeId peer) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace uccp::runtime
