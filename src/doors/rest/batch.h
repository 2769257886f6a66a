// Batch: POST /api/v1/batch. Several requests in one, each of which goes the whole way of a request of its own, one
// after the other. Private to the REST door.
//
// Thread: that of the connection. Lifetime: the exchange's events keep it until the answer is complete.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "doors/rest/http.h"

namespace uccp::doors {

inline constexpr std::string_view kBatchPath = "/api/v1/batch";

class Batch : public std::enable_shared_from_this<Batch> {
 public:
  static constexpr size_t kRequestsMax = 100;
  // Of all answers together; what would come behind is not done.
  static constexpr size_t kAnswerBytesMax = 16u << 20;
  // Handles one request of the batch.
  using Run = std::function<void(HttpRequest request, HttpExchangePtr exchange)>;

  // Runs all and answers. `outer` is the request that holds them; `call_id` its id, from which those of the parts come.
  static void begin(const HttpRequest& outer, const std::string& call_id, HttpExchangePtr exchange, Run run);

  Batch(std::vector<HttpRequest> requests, std::string call_id, HttpExchangePtr exchange, Run run)
      : requests_(std::move(requests)),
        call_id_(std::move(call_id)),
        exchange_(std::move(exchange)),
        run_(std::move(run)) {}

 private:
  class Part;
  void set_events();
  void advance();
  void answered(HttpResponse response);
  void finish();
  HttpRequest credentials_check() const;

  std::vector<HttpRequest> requests_;
  const std::string call_id_;
  HttpExchangePtr exchange_;  // null when it is over
  const Run run_;
  std::string answers_;  // JSON objects, joined by commas
  size_t at_ = 0;
  bool waiting_ = false;
  bool checking_ = true;  // the credentials come first: a public call that takes none or good ones
  bool advancing_ = false;
  std::shared_ptr<Part> part_;
};

}  // namespace uccp::doors
