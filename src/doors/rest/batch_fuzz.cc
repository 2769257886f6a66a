// Bodies of batches from arbitrary bytes: one answer, which is JSON, and no request beyond those that a batch may make.
#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "doors/rest/batch.h"

namespace {

using namespace uccp::doors;

// Keeps the answer; everything is done at once.
class Exchange final : public HttpExchange {
 public:
  void set_events(HttpEvents) override {}
  void respond(HttpResponse response) override {
    UCCP_CHECK(!answered, "a request has one answer");
    answered = true;
    answer = std::move(response);
  }
  void start(HttpResponse) override { UCCP_CHECK(false, "a batch knows the length of its answer"); }
  void write(std::string) override {}
  void end() override {}
  void abort() override {}
  size_t queued_bytes() const override { return 0; }
  void post(std::move_only_function<void()> task) override { task(); }

  bool answered = false;
  HttpResponse answer;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  HttpRequest outer{.verb = "POST", .path = std::string(kBatchPath), .has_body = true};
  outer.body.assign(reinterpret_cast<const char*>(data), size);
  outer.headers = {{"authorization", "Bearer t"}, {"content-type", "application/json"}};
  size_t runs = 0;
  const auto exchange = std::make_shared<Exchange>();
  Batch::begin(outer, "call", exchange, [&](const HttpRequest& part, const HttpExchangePtr& answer) {
    ++runs;
    UCCP_CHECK(part.path.starts_with("/api/v1/") && part.path != kBatchPath, "a part is a request of the API");
    UCCP_CHECK(part.header("authorization") == "Bearer t", "a part has the credentials of the whole");
    for (const std::string* text : {&part.path, &part.query}) {
      for (const char c : *text) UCCP_CHECK(c > ' ' && c < 127, "nothing in a path ends a line");
    }
    answer->respond({.status = 200, .headers = {{"Content-Type", "application/json"}}, .body = R"({"a":1})"});
  });
  UCCP_CHECK(exchange->answered, "a batch is answered");
  UCCP_CHECK(runs <= Batch::kRequestsMax + 1, "a batch has a limit, and asks once whose it is");
  simdjson::dom::parser parser;
  UCCP_CHECK(parser.parse(exchange->answer.body).error() == simdjson::SUCCESS, "the answer is JSON");
  return 0;
}
