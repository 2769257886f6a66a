// One HTTP/1.1 connection: reads requests, lets them be handled one at a time, writes the answers. Private.
//
// Invariants: at most one read and one write are outstanding; everything runs on the io thread of the transport. While
// a request is being handled reading goes on up to kReadAheadMax, to notice a client that goes away and to hold
// pipelined requests.
// Lifetime: outstanding operations keep it, and the server's list until `on_gone`. A handler that answers may keep it
// for longer than the server lives: once closed it touches nothing of the server's.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "doors/rest/http.h"
#include "doors/rest/http_server.h"

namespace uccp::doors {

// A socket, plain or with TLS. All on one io thread, except post().
class Transport {
 public:
  using Done = std::move_only_function<void(bool ok, size_t bytes)>;
  virtual ~Transport() = default;
  virtual void handshake(Done done) = 0;
  virtual void read_some(char* to, size_t size, Done done) = 0;
  virtual void write_some(const char* from, size_t size, Done done) = 0;
  // Tells the client that no more is sent.
  virtual void shut_down() = 0;
  // Operations at work end with !ok.
  virtual void close() = 0;
  // Runs the task on the io thread; at once when called there.
  virtual void post(std::move_only_function<void()> task) = 0;
  virtual std::string address() const = 0;
  virtual std::string certificate_pem() const = 0;
  // Whether that certificate would be taken now; OK if there is none.
  virtual Status check_client(const PeerTrust& clients) const { return Status::ok(); }
  // The object that owns the transport, for operations that end without a callback into it.
  virtual void owned_by(std::weak_ptr<void> owner) {}
};

// Counters of a server, shared by its connections.
struct HttpCounters {
  Gauge& connections;
  Counter& refused;
  Counter& rejected;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  static constexpr size_t kReadAheadMax = 64 * 1024;
  static constexpr size_t kReadBytes = 16 * 1024;
  static constexpr size_t kWriteBytes = 64 * 1024;
  static constexpr size_t kDrainedBytes = 64 * 1024;
  // How long what a refused client still sends is thrown away, so that it can read the refusal.
  static constexpr int64_t kLingerMs = 2000;

  HttpConnection(std::unique_ptr<Transport> transport, const HttpServerOptions& options, HttpHandler& handler,
                 const Clock& clock, HttpCounters& counters, bool refuse);
  virtual ~HttpConnection();

  void begin();
  void tick(BootTime now);
  // No further request is taken; closes when the present one is answered.
  void drain();
  void close();
  // Ends the connection if its client's certificate is not taken any more: an answer on its way may still leave.
  void check_client(std::shared_ptr<const PeerTrust> clients);
  bool is_idle() const;
  std::function<void(HttpConnection*)> on_gone;

 private:
  class Exchange;
  struct Parser;
  enum class Framing : uint8_t { kLength, kChunked, kUntilClose };
  enum class State : uint8_t { kHandshake, kIdle, kHeader, kBody, kHandling, kLinger, kClosed };

  void read();
  void on_read(bool ok, size_t bytes);
  void process();
  bool parse();  // false: needs more bytes
  void on_header();
  void dispatch();
  void body_bytes();
  void refuse(int status, std::string_view reason, std::string_view detail);
  void next_request();
  void answer_complete();
  void set_state(State state, int64_t timeout_ms);
  // What is left of `timeout_ms` for the next byte of something that began then and of which so many bytes are done.
  int64_t pace_ms(BootTime began, size_t bytes, int64_t timeout_ms) const;
  void linger(bool client_sends);

  void put(std::string bytes);
  void write();
  void on_write(bool ok, size_t bytes);
  std::string head_of(const HttpResponse& response, Framing framing);

  std::unique_ptr<Transport> transport_;
  const HttpServerOptions& options_;
  HttpHandler& handler_;
  const Clock& clock_;
  HttpCounters& counters_;
  const bool refuse_;  // one connection too many

  State state_ = State::kHandshake;
  BootTime deadline_;  // of the state
  bool has_deadline_ = false;
  BootTime body_began_;                           // kBody
  size_t body_bytes_ = 0;                         // of it, framing included
  BootTime write_deadline_;                       // while writing_
  BootTime write_began_;                          // since there has always been something to write
  size_t written_ = 0;                            // of that
  std::shared_ptr<const PeerTrust> check_later_;  // when the handshake is over
  bool refused_ = false;                          // the client's certificate is not taken any more
  BootTime refused_until_;
  bool reading_ = false;
  bool writing_ = false;
  bool processing_ = false;
  bool draining_ = false;
  bool close_after_ = false;  // the answer at work is the last one
  bool streamed_ = false;     // the body goes to the exchange as it comes
  bool body_done_ = false;
  bool shut_down_after_ = false;  // kLinger: when all is written
  std::string certificate_pem_;
  std::string in_;  // read and not parsed
  size_t in_at_ = 0;
  std::string read_space_;
  std::deque<std::string> out_;
  size_t out_bytes_ = 0;
  std::string write_space_;
  size_t write_at_ = 0;
  std::unique_ptr<Parser> parser_;
  HttpRequest request_;
  std::shared_ptr<Exchange> exchange_;
};

}  // namespace uccp::doors
