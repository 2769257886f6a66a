// EdgeExchange: what happens to every answer on its way out, whoever made it: compression and cross-origin headers.
// Private to the REST door.
#pragma once

#include <memory>
#include <string>

#include "doors/net/encoding.h"
#include "doors/rest/http.h"

namespace uccp::doors {

struct EdgeOptions {
  Encoding encoding = Encoding::kNone;  // that the client takes
  bool cors = false;                    // some origins are allowed, so answers vary by it
  std::string allow_origin;             // the origin of this request, if it is allowed
};

// The answer as it leaves.
void finish_at_edge(const EdgeOptions& options, HttpResponse& response);

class EdgeExchange final : public HttpExchange {
 public:
  EdgeExchange(HttpExchangePtr inner, EdgeOptions options) : inner_(std::move(inner)), options_(std::move(options)) {}

  void set_events(HttpEvents events) override { inner_->set_events(std::move(events)); }
  void respond(HttpResponse response) override;
  void start(HttpResponse head) override;
  void write(std::string chunk) override { inner_->write(std::move(chunk)); }
  void end() override { inner_->end(); }
  void abort() override { inner_->abort(); }
  size_t queued_bytes() const override { return inner_->queued_bytes(); }
  void post(std::move_only_function<void()> task) override { inner_->post(std::move(task)); }

 private:
  const HttpExchangePtr inner_;
  const EdgeOptions options_;
};

}  // namespace uccp::doors
