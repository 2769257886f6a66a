// RestCall: the sink of a Call whose client waits at an HTTP exchange. Private to the REST door.
//
// send() and finish() only queue, from any thread; encoding and writing happen on the connection's thread (flush).
// Lifetime: the exchange's events keep it until the answer is complete; the handler's Call may keep it longer.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "call/call.h"
#include "call/pipeline/pipeline.h"
#include "doors/rest/http.h"
#include "doors/rest/stream_format.h"

namespace uccp::doors {

struct RestCallOptions {
  const call::RestBinding* binding = nullptr;
  StreamForm form = StreamForm::kNdjson;
  bool pretty = false;
  std::optional<call::FieldTree> only;  // the request names the fields of its items: these and those around them
  bool head = false;                    // the answer's header is all that is wanted
  std::string if_none_match;
  std::string next_page;  // path and query of the next page up to its token; empty: no list
  int64_t heartbeat_ms = 15'000;
  // What was wrong with the JSON of the request; takes the place of the pipeline's complaint about the bytes.
  std::optional<Status> build_error;
  // Answers instead of the method: the health documents.
  std::function<HttpResponse()> instead;
};

class RestCall final : public call::Sink, public std::enable_shared_from_this<RestCall> {
 public:
  // A handler that ignores back-pressure loses its call here: exhausted STREAM_TOO_SLOW.
  static constexpr size_t kQueueBytesMax = 32u << 20;
  // A stream without an item is answered its header after this time; an error before it still has an HTTP status.
  static constexpr int64_t kHeaderAfterMs = 500;

  RestCall(HttpExchangePtr exchange, RestCallOptions options)
      : exchange_(std::move(exchange)), options_(std::move(options)) {}

  // Gives the call to the pipeline. On the connection's thread.
  void dispatch(call::Pipeline& pipeline, call::CallPtr call, std::string request, const Clock& clock);

  void send(std::string message) override;
  void finish(Status status) override;
  size_t queued_bytes() const override;

 private:
  void set_events();
  void on_lines(std::string_view chunk);
  void on_line(std::string_view line);
  void on_tick(BootTime now);
  void on_closed();
  void poke();

  // On the connection's thread, until complete().
  void flush();
  bool write_item(const std::string& message);
  void start_stream();
  void end_stream(const Status& outcome);
  void answer(const Status& outcome);
  HttpResponse success(const std::string& message);
  void add_common(HttpResponse& response) const;
  void add_next_page(HttpResponse& response, const std::string& message) const;
  void add_rate(HttpResponse& response, const Status& outcome) const;
  void complete();

  bool streams_out() const { return options_.binding->method->server_streaming && !options_.instead; }

  HttpExchangePtr exchange_;  // null when complete; connection's thread
  RestCallOptions options_;
  BootTime started_;
  BootTime written_;
  bool started_stream_ = false;
  bool truncated_ = false;
  std::string answer_;  // of a unary method
  std::string tenant_;  // named by a request that makes something
  std::string line_;    // of an upload, not complete yet
  size_t line_number_ = 0;

  mutable std::mutex mutex_;
  call::CallPtr call_;
  std::shared_ptr<HttpExchange> poster_;  // exchange_ for other threads
  std::deque<std::string> queue_;
  size_t queued_bytes_ = 0;
  std::optional<Status> outcome_;
  bool poked_ = false;
  bool overflow_ = false;
};

}  // namespace uccp::doors
