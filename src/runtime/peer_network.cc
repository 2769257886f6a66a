#include "runtime/peer_network.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "base/random.h"
#include "runtime/peer_frame.h"
#include "runtime/peer_link.h"
#include "runtime/peer_metrics.h"
#include "runtime/tls.h"

namespace uccp::runtime {
namespace {

constexpr size_t kWriteBytes = 128 << 10;
constexpr size_t kReadBytes = 128 << 10;
constexpr std::chrono::seconds kRefusalLogInterval{1};
// How long a connection is kept whose certificate comes from an authority that is no longer trusted.
constexpr int64_t kUntrustedMs = 3'000;

Status untrusted(std::string message) { return Status(Code::kUnauthenticated, "PEER_UNTRUSTED", std::move(message)); }

}  // namespace

// Every coroutine keeps the state alive: they end some turns of the loop after stop(), or with the loop.
struct PeerNetwork::State : std::enable_shared_from_this<PeerNetwork::State> {
  State(PeerNetworkOptions o, Loop& l, MetricsRegistry& registry, uint64_t seed)
      : options(std::move(o)), loop(l), io(l.io()), metrics(registry), random(seed), acceptor(io) {}

  struct Contexts {
    std::shared_ptr<asio::ssl::context> server, client;
  };
  Result<Contexts> make_contexts(const PemIdentity& identity, std::shared_ptr<const PeerTrust> trust) const;
  void check_peers(bool own_is_new);
  void end_untrusted_later(const LinkPointer& link);
  void end_untrusted(const LinkPointer& link);
  Result<uint16_t> bind();

  asio::awaitable<void> accept_all();
  asio::awaitable<void> serve(LinkPointer link);
  asio::awaitable<Result<NodeId>> greet(LinkPointer link, PeerFrameDecoder& decoder, std::vector<PeerFrame>& frames);
  asio::awaitable<void> receive(LinkPointer link, NodeId from, PeerFrameDecoder& decoder,
                                std::vector<PeerFrame> frames);
  Status check_hello(Link& link, const PeerHello& hello);
  Status check_certificate(Link& link, NodeId claimed);
  bool deliver(NodeId from, std::vector<PeerFrame> frames);

  asio::awaitable<void> dial_forever(OutboundPointer out);
  asio::awaitable<Status> connect(OutboundPointer out, LinkPointer link);
  asio::awaitable<Result<PeerHello>> read_hello(LinkPointer link, PeerFrameDecoder& decoder,
                                                std::vector<PeerFrame>& frames);
  asio::awaitable<Status> write(LinkPointer link, std::string bytes);
  asio::awaitable<void> send_all(OutboundPointer out, LinkPointer link);
  asio::awaitable<void> watch_for_end(LinkPointer link);
  void tell_down(NodeId peer);
  void close_outbound(Outbound& out);

  void spawn(asio::awaitable<void> work);
  void apply_peers(std::map<NodeId, std::vector<PeerAddress>> wanted);
  void close_all();
  OutboundPointer find(NodeId peer) const;
  std::string hello_to(NodeId peer) const;

  PeerNetworkOptions options;
  Loop& loop;
  asio::io_context& io;
  PeerMetrics metrics;
  SeededRandom random;
  Receiver receiver;
  PeerDown peer_down;

  tcp::acceptor acceptor;
  Contexts tls;                            // on the loop, once started
  std::shared_ptr<const PeerTrust> trust;  // on the loop; null: never replaced
  std::atomic<bool> stopped{false};

  mutable std::mutex peers_mutex;  // changed on the loop only
  std::map<NodeId, OutboundPointer> peers;

  std::map<Link*, LinkPointer> inbound;      // all accepted links
  std::map<NodeId, LinkPointer> identified;  // the link that a peer sends on
  size_t handshakes = 0;
  std::chrono::steady_clock::time_point next_refusal_log{};
};

Result<PeerNetwork::State::Contexts> PeerNetwork::State::make_contexts(const PemIdentity& identity,
                                                                       std::shared_ptr<const PeerTrust> trusted) const {
  UCCP_TRY(const CertificateInfo own, inspect_certificate(identity.certificate_pem));
  const std::string uri = node_uri(options.cluster_id, options.self);
  if (std::ranges::find(own.uris, uri) == own.uris.end()) {
    return fail(Code::kFailedPrecondition, "NODE_CERTIFICATE_MISMATCH",
                "the node's certificate does not name " + uri + "; issue one for this cluster and node");
  }
  const TlsOptions both{.identity = identity,
                        .ca_pem = options.ca_pem,
                        .client_certificate = PeerCertificate::kRequired,
                        .trust = std::move(trusted)};
  UCCP_TRY(const TlsContext server, make_server_context(both));
  UCCP_TRY(const TlsContext client, make_client_context(both));
  return Contexts{std::make_shared<asio::ssl::context>(adopt(server)),
                  std::make_shared<asio::ssl::context>(adopt(client))};
}

// Nodes go over to another authority within seconds of each other. So connections that this node has dialled are
// dialled again at once, which a peer hardly notices, and those that were accepted are left to the other end for a
// while. Only a certificate that was revoked ends its connection at once.
void PeerNetwork::State::check_peers(bool own_is_new) {
  if (!trust) return;
  for (const auto& [id, out] : peers) {
    const LinkPointer link = out->link;
    if (!link || !link->open || !link->established) continue;
    if (!own_is_new && check_peer_again(link->stream.native_handle(), *trust).is_ok()) continue;
    link->replaced = true;
    link->close();
  }
  const auto all = inbound;
  for (const auto& [key, link] : all) {
    if (!link->open || !link->established) continue;
    const Status accepted = check_peer_again(link->stream.native_handle(), *trust);
    if (accepted.is_ok()) continue;
    if (accepted.reason() == "CERTIFICATE_REVOKED") end_untrusted(link);
    else end_untrusted_later(link);
  }
}

// A task may run on another thread than the sockets.
void PeerNetwork::State::end_untrusted_later(const LinkPointer& link) {
  loop.post_after(kUntrustedMs, [self = shared_from_this(), link] {
    asio::post(self->io, [self, link] { self->end_untrusted(link); });
  });
}

void PeerNetwork::State::end_untrusted(const LinkPointer& link) {
  if (stopped || !link->open) return;
  const Status accepted = check_peer_again(link->stream.native_handle(), *trust);
  if (accepted.is_ok()) return;
  metrics.rejected_identity.add();
  log::warn("the connection of a peer ends", {{"error", accepted.to_string()}});
  link->close();
}

Result<uint16_t> PeerNetwork::State::bind() {
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.listen_host, std::to_string(options.listen_port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return fail(Code::kInvalid, "ADDRESS_INVALID",
                "cannot listen on '" + options.listen_host + "': " + error.message());
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    const std::string where = options.listen_host + ":" + std::to_string(options.listen_port);
    acceptor.close(error);
    return fail(Code::kFailedPrecondition, "ADDRESS_IN_USE", "cannot listen on " + where + " for other nodes");
  }
  return acceptor.local_endpoint(error).port();
}

void PeerNetwork::State::spawn(asio::awaitable<void> coroutine) {
  asio::co_spawn(io, std::move(coroutine), [self = shared_from_this()](std::exception_ptr thrown) {
    // Nothing of ours throws; what Asio and the allocator throw leaves the connection in an unknown state.
    UCCP_CHECK(!thrown, "a peer connection ends without an exception");
  });
}

OutboundPointer PeerNetwork::State::find(NodeId peer) const {
  std::lock_guard lock(peers_mutex);
  const auto found = peers.find(peer);
  return found == peers.end() ? nullptr : found->second;
}

std::string PeerNetwork::State::hello_to(NodeId peer) const {
  std::string out;
  append_peer_piece(out, PeerFrameKind::kHello, false,
                    encode_peer_hello({options.cluster_id, options.self, peer, options.incarnation}));
  return out;
}

// ---- receiving

asio::awaitable<void> PeerNetwork::State::accept_all() {
  while (acceptor.is_open()) {
    tcp::socket socket(io);
    error_code error;
    co_await acceptor.async_accept(socket, with_error(error));
    if (!acceptor.is_open()) break;
    if (error) {
      // Most likely out of descriptors: a pause keeps the thread from spinning.
      log::warn("cannot accept a peer connection", {{"error", reason_of(error)}});
      asio::steady_timer pause(io, std::chrono::milliseconds(options.backoff_ms_min));
      co_await pause.async_wait(with_error(error));
      continue;
    }
    // With the certificates of now: they may have been replaced while it waited.
    auto link = std::make_shared<Link>(std::move(socket), *tls.server);
    if (inbound.size() >= options.connections_max || handshakes >= options.handshakes_max) {
      metrics.rejected_limit.add();
      link->close();
      continue;
    }
    inbound.emplace(link.get(), link);
    ++handshakes;
    spawn(serve(link));
  }
}

asio::awaitable<void> PeerNetwork::State::serve(LinkPointer link) {
  PeerFrameDecoder decoder(options.frame_bytes_max);
  std::vector<PeerFrame> frames;
  limit_handshake(link, options.handshake_timeout_ms);
  tune(link->socket());
  const Result<NodeId> from = co_await greet(link, decoder, frames);
  --handshakes;
  // Asked again: the peer may have left the map while the answer was on its way, and closing it was nobody's job then.
  if (from && link->open && find(*from)) {
    link->established = true;
    link->deadline.cancel();
    // The peer has dialled again before the end of its old connection was noticed here.
    if (const auto old = identified.find(*from); old != identified.end()) old->second->close();
    identified.insert_or_assign(*from, link);
    co_await receive(link, *from, decoder, std::move(frames));
    if (const auto mine = identified.find(*from); mine != identified.end() && mine->second == link) {
      identified.erase(mine);
    }
  } else if (!from) {
    metrics.rejected_identity.add();
    // Strangers can do this as often as they like, but not fill the disk with it.
    const auto now = std::chrono::steady_clock::now();
    if (now >= next_refusal_log) {
      next_refusal_log = now + kRefusalLogInterval;
      log::warn("a peer connection was refused", {{"error", from.error().to_string()}});
    }
  }
  link->close();
  inbound.erase(link.get());
}

asio::awaitable<Result<NodeId>> PeerNetwork::State::greet(LinkPointer link, PeerFrameDecoder& decoder,
                                                          std::vector<PeerFrame>& frames) {
  error_code error;
  co_await link->stream.async_handshake(asio::ssl::stream_base::server, with_error(error));
  if (error) co_return fail(untrusted("the TLS handshake of a peer failed: " + reason_of(error)));
  Result<PeerHello> hello = co_await read_hello(link, decoder, frames);
  if (!hello) co_return fail(hello.error());
  if (Status known = check_hello(*link, *hello); !known.is_ok()) co_return fail(std::move(known));
  if (Status sent = co_await write(link, hello_to(hello->from)); !sent.is_ok()) co_return fail(std::move(sent));
  co_return hello->from;
}

Status PeerNetwork::State::check_hello(Link& link, const PeerHello& hello) {
  const std::string who = "a peer that calls itself node " + std::to_string(hello.from.value);
  if (hello.cluster_id != options.cluster_id) {
    return untrusted(who + " belongs to cluster '" + hello.cluster_id + "', this node to '" + options.cluster_id + "'");
  }
  if (hello.to != options.self) {
    return untrusted(who + " looks for node " + std::to_string(hello.to.value) + " and found node " +
                     std::to_string(options.self.value) + "; its address of that node is wrong");
  }
  UCCP_RETURN_IF_ERROR(check_certificate(link, hello.from));
  if (!find(hello.from)) return untrusted(who + " is not a member that this node knows");
  const Loop::Turn turn(loop);
  if (options.admit && !options.admit(hello.from, hello.incarnation)) {
    return untrusted(who + " has another data directory than the member of that id; remove and add it again");
  }
  return Status::ok();
}

Status PeerNetwork::State::check_certificate(Link& link, NodeId claimed) {
  UCCP_TRY(const CertificateInfo shown, peer_certificate(link.stream.native_handle()));
  const std::string uri = node_uri(options.cluster_id, claimed);
  if (std::ranges::find(shown.uris, uri) != shown.uris.end()) return Status::ok();
  return untrusted("the certificate of '" + shown.common_name + "' does not name " + uri);
}

// The frame must be the first one. What follows it stays in `frames`.
asio::awaitable<Result<PeerHello>> PeerNetwork::State::read_hello(LinkPointer link, PeerFrameDecoder& decoder,
                                                                  std::vector<PeerFrame>& frames) {
  std::vector<char> buffer(4 << 10);
  while (frames.empty()) {
    error_code error;
    const size_t got = co_await link->stream.async_read_some(asio::buffer(buffer), with_error(error));
    if (error) co_return fail(Code::kUnavailable, "PEER_CONNECTION_LOST", "no hello from a peer: " + reason_of(error));
    if (Status fed = decoder.feed({buffer.data(), got}, frames); !fed.is_ok()) co_return fail(std::move(fed));
  }
  if (frames.front().kind != PeerFrameKind::kHello) {
    co_return fail(Code::kInvalid, "PEER_HELLO_INVALID", "a peer sent frames before its hello");
  }
  Result<PeerHello> hello = decode_peer_hello(frames.front().data);
  frames.erase(frames.begin());
  co_return hello;
}

asio::awaitable<void> PeerNetwork::State::receive(LinkPointer link, NodeId from, PeerFrameDecoder& decoder,
                                                  std::vector<PeerFrame> frames) {
  std::vector<char> buffer(kReadBytes);
  while (link->open) {
    if (!deliver(from, std::exchange(frames, {}))) co_return;
    if (!link->open) co_return;
    error_code error;
    const size_t got = co_await link->stream.async_read_some(asio::buffer(buffer), with_error(error));
    if (error) co_return;
    if (const Status fed = decoder.feed({buffer.data(), got}, frames); !fed.is_ok()) {
      metrics.rejected_garbage.add();
      log::error("a peer's connection is closed for what it sent", {{"peer", from.value}, {"error", fed.to_string()}});
      co_return;
    }
  }
}

// False if the peer broke the protocol.
bool PeerNetwork::State::deliver(NodeId from, std::vector<PeerFrame> frames) {
  const Loop::Turn turn(loop);
  for (PeerFrame& frame : frames) {
    if (stopped) return true;
    if (frame.kind == PeerFrameKind::kHello) {
      metrics.rejected_garbage.add();
      log::error("a peer's connection is closed for a second hello", {{"peer", from.value}});
      return false;
    }
    metrics.received.add();
    receiver(from, std::move(frame.data));
  }
  return true;
}

// ---- sending

asio::awaitable<void> PeerNetwork::State::dial_forever(OutboundPointer out) {
  int64_t backoff_ms = options.backoff_ms_min;
  bool reported = false;
  bool replacing = false;  // the connection before was closed for this one
  while (!out->closed) {
    auto link = std::make_shared<Link>(io, *tls.client);
    out->link = link;
    const Status status = co_await connect(out, link);
    if (status.is_ok() && link->open) {
      log::info("connected to a peer", {{"peer", out->peer.value}});
      reported = false;
      backoff_ms = options.backoff_ms_min;
      co_await send_all(out, link);
      replacing = link->replaced;
      if (replacing && !out->closed) continue;
      tell_down(out->peer);
    } else {
      if (std::exchange(replacing, false)) tell_down(out->peer);
      // Once an outage: a peer may be down for days.
      if (!reported && !out->closed) {
        log::warn("cannot connect to a peer, trying on", {{"peer", out->peer.value}, {"error", status.to_string()}});
      }
      reported = true;
      out->place = (out->place + 1) % out->places.size();
    }
    link->close();
    out->link = nullptr;
    if (out->closed) break;
    // Half to all of the time, so that nodes that lost the same peer do not come back in step.
    const int64_t wait_ms =
        backoff_ms / 2 + static_cast<int64_t>(random.below(static_cast<uint64_t>(backoff_ms / 2 + 1)));
    out->retry.expires_after(std::chrono::milliseconds(wait_ms));
    error_code ignored;
    co_await out->retry.async_wait(with_error(ignored));
    backoff_ms = std::min(backoff_ms * 2, options.backoff_ms_max);
  }
}

asio::awaitable<Status> PeerNetwork::State::connect(OutboundPointer out, LinkPointer link) {
  const PeerAddress address = out->places[out->place];
  const auto unreachable = [&](const error_code& error) {
    return Status(Code::kUnavailable, "PEER_UNREACHABLE",
                  address.host + ":" + std::to_string(address.port) + " cannot be reached: " + error.message());
  };
  limit_handshake(link, options.handshake_timeout_ms);
  error_code error;
  const auto endpoints = co_await link->resolver.async_resolve(address.host, std::to_string(address.port),
                                                               tcp::resolver::numeric_service, with_error(error));
  if (!error && link->open) co_await asio::async_connect(link->socket(), endpoints, with_error(error));
  if (error || !link->open) co_return unreachable(error);
  tune(link->socket());
  co_await link->stream.async_handshake(asio::ssl::stream_base::client, with_error(error));
  if (error) co_return unreachable(error);
  if (Status named = check_certificate(*link, out->peer); !named.is_ok()) co_return named;
  if (Status sent = co_await write(link, hello_to(out->peer)); !sent.is_ok()) co_return sent;

  PeerFrameDecoder decoder(kPeerHelloBytesMax);
  std::vector<PeerFrame> frames;
  const Result<PeerHello> answer = co_await read_hello(link, decoder, frames);
  if (!answer) co_return answer.error();
  if (answer->cluster_id != options.cluster_id || answer->from != out->peer || answer->to != options.self) {
    co_return untrusted("the answer at " + address.host + " is not from node " + std::to_string(out->peer.value));
  }
  link->established = true;
  link->deadline.cancel();
  co_return Status::ok();
}

asio::awaitable<Status> PeerNetwork::State::write(LinkPointer link, std::string bytes) {
  error_code error;
  co_await asio::async_write(link->stream, asio::buffer(bytes), with_error(error));
  if (error)
    co_return Status(Code::kUnavailable, "PEER_CONNECTION_LOST", "sending to a peer failed: " + reason_of(error));
  co_return Status::ok();
}

asio::awaitable<void> PeerNetwork::State::send_all(OutboundPointer out, LinkPointer link) {
  {
    std::lock_guard lock(out->mutex);
    out->accepting = true;
  }
  out->connected = true;
  spawn(watch_for_end(link));
  while (link->open) {
    std::string bytes;
    {
      std::lock_guard lock(out->mutex);
      bytes = out->queue.take(kWriteBytes);
      out->wake_posted = false;
    }
    if (bytes.empty()) {
      co_await sleep_until_cancelled(link->wake);
    } else if (const Status sent = co_await write(link, std::move(bytes)); !sent.is_ok()) {
      break;
    }
  }
  link->close();
  out->connected = false;
  std::lock_guard lock(out->mutex);
  out->accepting = false;
  metrics.dropped_unreachable.add(out->queue.clear());
}

// The peer sends nothing here after its hello, so whatever comes is the end of the connection.
asio::awaitable<void> PeerNetwork::State::watch_for_end(LinkPointer link) {
  char byte = 0;
  error_code error;
  co_await link->stream.async_read_some(asio::buffer(&byte, 1), with_error(error));
  link->close();
}

void PeerNetwork::State::tell_down(NodeId peer) {
  const Loop::Turn turn(loop);
  if (!stopped && peer_down) peer_down(peer);
}

void PeerNetwork::State::close_outbound(Outbound& out) {
  out.closed = true;
  out.retry.cancel();
  if (out.link) out.link->close();
}

// ---- membership and life cycle

void PeerNetwork::State::apply_peers(std::map<NodeId, std::vector<PeerAddress>> wanted) {
  wanted.erase(options.self);
  std::vector<OutboundPointer> gone;
  std::vector<OutboundPointer> added;
  {
    std::lock_guard lock(peers_mutex);
    std::erase_if(peers, [&](const auto& entry) {
      const auto found = wanted.find(entry.first);
      const bool keep = found != wanted.end() && entry.second->take_places(found->second);
      if (!keep) gone.push_back(entry.second);
      return !keep;
    });
    for (const auto& [id, places] : wanted) {
      const auto [entry, is_new] = peers.try_emplace(id);
      if (!is_new) continue;
      entry->second = std::make_shared<Outbound>(io, id, places, options);
      added.push_back(entry->second);
    }
  }
  for (const OutboundPointer& out : gone) {
    close_outbound(*out);
    const auto link = identified.find(out->peer);
    if (!wanted.contains(out->peer) && link != identified.end()) link->second->close();
  }
  for (OutboundPointer& out : added) spawn(dial_forever(std::move(out)));
}

void PeerNetwork::State::close_all() {
  error_code ignored;
  acceptor.close(ignored);
  apply_peers({});
  for (const auto& [key, link] : inbound) link->close();
}

PeerNetwork::PeerNetwork(PeerNetworkOptions options, Loop& loop, MetricsRegistry& metrics, uint64_t seed)
    : state_(std::make_shared<State>(std::move(options), loop, metrics, seed)) {}

PeerNetwork::~PeerNetwork() { stop(); }

Result<uint16_t> PeerNetwork::listen() {
  state_->trust = state_->options.trust;
  UCCP_TRY(state_->tls, state_->make_contexts(state_->options.identity, state_->trust));
  return state_->bind();
}

void PeerNetwork::start(Receiver receiver, PeerDown peer_down) {
  UCCP_CHECK(state_->acceptor.is_open() && !state_->receiver, "a peer network listens, then is started once");
  state_->receiver = std::move(receiver);
  state_->peer_down = std::move(peer_down);
  state_->spawn(state_->accept_all());
}

void PeerNetwork::send(NodeId to, NetworkLane lane, std::string frame) {
  if (frame.size() > state_->options.frame_bytes_max) {
    state_->metrics.dropped_too_large.add();
    return;
  }
  const OutboundPointer out = state_->find(to);
  if (!out) {
    state_->metrics.dropped_unreachable.add();
    return;
  }
  {
    std::lock_guard lock(out->mutex);
    if (!out->accepting) {
      state_->metrics.dropped_unreachable.add();
      return;
    }
    if (!out->queue.push(lane, std::move(frame))) {
      state_->metrics.dropped_full.add();
      return;
    }
    state_->metrics.sent.add();
    if (std::exchange(out->wake_posted, true)) return;
  }
  const auto wake = [out] {
    if (out->link) out->link->wake.cancel();
  };
  if (state_->loop.in_own_thread()) wake();
  else asio::post(state_->io, wake);
}

void PeerNetwork::stop() {
  if (state_->stopped.exchange(true)) return;
  asio::post(state_->io, [state = state_] { state->close_all(); });
}

void PeerNetwork::set_peers(std::map<NodeId, PeerAddress> peers, std::map<NodeId, PeerAddress> elsewhere) {
  std::map<NodeId, std::vector<PeerAddress>> wanted;
  for (auto& [id, address] : peers) {
    std::vector<PeerAddress>& places = wanted[id];
    places.push_back(std::move(address));
    const auto other = elsewhere.find(id);
    if (other != elsewhere.end() && other->second != places.front()) places.push_back(std::move(other->second));
  }
  asio::post(state_->io, [state = state_, wanted = std::move(wanted)]() mutable {
    if (!state->stopped) state->apply_peers(std::move(wanted));
  });
}

Status PeerNetwork::replace_certificates(const PemIdentity& identity, std::shared_ptr<const PeerTrust> trust) {
  UCCP_TRY(auto made, state_->make_contexts(identity, trust));
  asio::post(state_->io, [state = state_, made = std::move(made), trust = std::move(trust),
                          shown = identity.certificate_pem]() mutable {
    const bool own_is_new = std::exchange(state->options.identity.certificate_pem, shown) != shown;
    state->tls = std::move(made);
    state->trust = std::move(trust);
    if (!state->stopped) state->check_peers(own_is_new);
  });
  return Status::ok();
}

void PeerNetwork::check_peers() {
  asio::post(state_->io, [state = state_] {
    if (!state->stopped) state->check_peers(false);
  });
}

bool PeerNetwork::connected(NodeId peer) const {
  const OutboundPointer out = state_->find(peer);
  return out && out->connected;
}

}  // namespace uccp::runtime
