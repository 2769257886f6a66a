// One connection between nodes, and one peer that is dialled: what PeerNetwork's coroutines work on. Asio is in here,
// so only peer_network.cc includes it.
//
// Thread: the loop of the network, but for what says otherwise.
#pragma once

#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <utility>

#include "runtime/peer_frame.h"
#include "runtime/peer_network.h"
#include "runtime/tls.h"

namespace uccp::runtime {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// What the kernel holds unsent cannot be overtaken by a control frame.
inline constexpr int kUnsentBytesMax = 256 << 10;
inline constexpr int kUnacknowledgedMsMax = 10'000;

inline auto with_error(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

inline std::string reason_of(const error_code& error) { return error.message(); }

// A connection in either direction, from the first byte to its end.
struct Link {
  Link(asio::io_context& io, asio::ssl::context& tls) : Link(tcp::socket(io), tls) {}
  Link(tcp::socket socket, asio::ssl::context& tls)
      : stream(std::move(socket), tls),
        resolver(stream.get_executor()),
        deadline(stream.get_executor()),
        wake(stream.get_executor()) {}

  tcp::socket& socket() { return stream.next_layer(); }

  void close() {
    open = false;
    error_code ignored;
    resolver.cancel();
    socket().close(ignored);
    deadline.cancel();
    wake.cancel();
  }

  asio::ssl::stream<tcp::socket> stream;
  tcp::resolver resolver;
  asio::steady_timer deadline;  // of the handshake
  asio::steady_timer wake;      // cancelled to wake the coroutine that sends
  bool open = true;
  bool established = false;
  bool replaced = false;  // closed here, for another one with new certificates
};
using LinkPointer = std::shared_ptr<Link>;

// The link is closed unless it is established in time.
inline void limit_handshake(const LinkPointer& link, int64_t timeout_ms) {
  link->deadline.expires_after(std::chrono::milliseconds(timeout_ms));
  link->deadline.async_wait([link](const error_code&) {
    if (!link->established) link->close();
  });
}

inline void tune(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const int fd = socket.native_handle();
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMsMax, sizeof(int));
  ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytesMax, sizeof(int));
}

// Sleeps until somebody cancels `timer`. The timer must not be cancelled before: state is checked by the caller first.
inline asio::awaitable<void> sleep_until_cancelled(asio::steady_timer& timer) {
  timer.expires_at(asio::steady_timer::time_point::max());
  error_code ignored;
  co_await timer.async_wait(with_error(ignored));
}

inline asio::ssl::context adopt(const TlsContext& context) {
  SSL_CTX_up_ref(context.get());
  return asio::ssl::context(context.get());
}

// Sending to one peer. push() from any thread, all else on the loop.
struct Outbound {
  Outbound(asio::io_context& io, NodeId id, std::vector<PeerAddress> where, const PeerNetworkOptions& options)
      : peer(id),
        places(std::move(where)),
        retry(io),
        queue(options.control_queue_bytes_max, options.bulk_queue_bytes_max) {}

  // False if where it is dialled, or connected to, is not among them: then nothing changes.
  bool take_places(const std::vector<PeerAddress>& wanted) {
    const auto at = std::find(wanted.begin(), wanted.end(), places[place]);
    if (at == wanted.end()) return false;
    place = static_cast<size_t>(at - wanted.begin());
    places = wanted;
    return true;
  }

  const NodeId peer;
  std::vector<PeerAddress> places;  // where it may be, not empty
  size_t place = 0;                 // that is dialled, or connected to
  asio::steady_timer retry;
  LinkPointer link;
  bool closed = false;
  std::atomic<bool> connected{false};

  std::mutex mutex;  // of what follows
  PeerQueue queue;
  bool accepting = false;
  bool wake_posted = false;
};
using OutboundPointer = std::shared_ptr<Outbound>;

}  // namespace uccp::runtime
