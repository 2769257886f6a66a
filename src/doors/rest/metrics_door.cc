#include "doors/rest/metrics_door.h"

#include "doors/rest/problem.h"

namespace uccp::doors {

class MetricsDoor::Handler final : public HttpHandler {
 public:
  Handler(MetricsRegistry& metrics, HealthSource& health) : metrics_(metrics), health_(health) {}

  BodyMode body_mode(const HttpRequest&) override { return BodyMode::kBuffered; }

  void handle(HttpRequest request, HttpExchangePtr exchange) override {
    const bool is_metrics = request.path == "/metrics";
    if (is_detailed_health_path(request.path)) {
      return exchange->respond(
          refusal(404, "ROUTE_NOT_FOUND",
                  request.path + " is for callers that show who they are, on the port of the REST API"));
    }
    if (!is_metrics && !is_public_health_path(request.path)) {
      return exchange->respond(refusal(404, "ROUTE_NOT_FOUND", "this port has /metrics and /health only"));
    }
    if (request.verb != "GET" && request.verb != "HEAD") {
      HttpResponse response = refusal(405, "METHOD_NOT_ALLOWED", request.path + " takes GET");
      response.headers.emplace_back("Allow", "GET, HEAD");
      return exchange->respond(std::move(response));
    }
    if (is_metrics) {
      return exchange->respond({200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, metrics_.text()});
    }
    HealthReport report = health_.report(request.path);
    exchange->respond({report.http_status,
                       {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}},
                       std::move(report.json)});
  }

  HttpResponse refusal(int status, std::string_view reason, std::string_view detail) override {
    const Code code = status == 404   ? Code::kNotFound
                      : status == 503 ? Code::kUnavailable
                      : status == 408 ? Code::kDeadline
                                      : Code::kInvalid;
    return problem_response(Status(code, reason, std::string(detail)), {});
  }

 private:
  MetricsRegistry& metrics_;
  HealthSource& health_;
};

MetricsDoor::MetricsDoor() = default;
MetricsDoor::~MetricsDoor() = default;

Result<uint16_t> MetricsDoor::start(const MetricsDoorOptions& options, const Clock& clock, MetricsRegistry& metrics,
                                    HealthSource& health) {
  handler_ = std::make_unique<Handler>(metrics, health);
  HttpServerOptions http;
  http.host = options.host;
  http.port = options.port;
  http.io_threads = 1;
  http.connections_max = options.connections_max;
  http.body_bytes_max = 0;
  http.metric = "uccp_metrics_http";
  return server_.start(std::move(http), *handler_, clock, metrics);
}

void MetricsDoor::stop() { server_.stop(0); }

}  // namespace uccp::doors
