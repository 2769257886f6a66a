#include "doors/rest/rest_door.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "base/bytes.h"
#include "base/hash.h"
#include "call/contract.h"
#include "call/routes.h"
#include "call/wire.h"
#include "doors/net/encoding.h"
#include "doors/rest/api_pages.h"
#include "doors/rest/batch.h"
#include "doors/rest/edge_exchange.h"
#include "doors/rest/problem.h"
#include "doors/rest/rest_call.h"

namespace uccp::doors {
namespace {

constexpr std::array<std::string_view, 4> kPublicHealth = {"/health", "/health/live", "/health/ready",
                                                           "/health/startup"};
constexpr std::array<std::string_view, 4> kDetailedHealth = {"/health/detailed", "/health/raft", "/health/storage",
                                                             "/health/cache"};
// Query parameters that are the door's and not the request's.
constexpr std::array<std::string_view, 3> kReserved = {"consistency", "pretty", "dryRun"};
constexpr std::string_view kSubscribePath = "/api/v1/events/subscribe";
// No protobuf message begins with this byte (field number 0): the pipeline's decode stage refuses it, after the stages
// before it had their say, as it does with malformed bytes of a gRPC client.
constexpr std::string_view kMalformed = "\x07";

// The media type without parameters, in lower case.
std::string media_type(std::string_view header) {
  std::string type(header.substr(0, header.find(';')));
  while (type.ends_with(' ')) type.pop_back();
  std::ranges::transform(type, type.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return type;
}

bool is_json(std::string_view type) {
  return type.empty() || type == "application/json" || type == "text/json" ||
         (type.starts_with("application/") && type.ends_with("+json"));
}

bool is_ndjson(std::string_view type) {
  return type == "application/x-ndjson" || type == "application/ndjson" || type == "application/jsonl";
}

std::string bearer_of(std::string_view authorization) {
  constexpr size_t kSize = 7;
  if (authorization.size() <= kSize || media_type(authorization.substr(0, kSize)) != "bearer") return {};
  std::string_view token = authorization.substr(kSize);
  while (token.starts_with(' ')) token.remove_prefix(1);
  return std::string(token);
}

// "\"v7\"" or "W/\"v7\"" as "v7".
std::string_view unquoted(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.starts_with('"') && etag.ends_with('"')) return etag.substr(1, etag.size() - 2);
  return etag;
}

bool is_call_id(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127 && c != '"' && c != '\\'; });
}

// The fields of a list's answer that were asked for: those of its items by the mask, and all around the items. Nullopt:
// all, or a mask that the method will refuse.
std::optional<call::FieldTree> asked_fields(const call::Method& method, std::string_view request) {
  if (!method.paging || method.paging->fields.empty() || method.items == nullptr) return std::nullopt;
  const auto mask = call::get_message(method.paging->fields, request);
  if (!mask) return std::nullopt;
  std::vector<std::string> paths;
  call::WireReader reader(*mask);
  for (call::WireField part; reader.next(part);) {
    if (part.number == 1)
      paths.push_back(method.items->name + (part.bytes == "*" ? "" : "." + std::string(part.bytes)));
  }
  if (paths.empty()) return std::nullopt;
  for (const call::FieldPlan& field : method.response->fields) {
    if (&field != method.items) paths.push_back(field.name);
  }
  auto tree = call::FieldTree::compile(*method.response, paths);
  return tree ? std::optional(std::move(*tree)) : std::nullopt;
}

// Path and query of a list with everything but the page token, which is to be appended.
std::string next_page_of(const call::RestBinding& binding, const HttpRequest& request) {
  const call::Method& method = *binding.method;
  if (!method.paging || binding.verb != "GET") return {};
  const call::FieldPlan& token = method.paging->page_token.leaf();
  std::string next = request.path + "?";
  for (std::string_view rest = request.query; !rest.empty();) {
    const size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end), key = pair.substr(0, pair.find('='));
    if (!pair.empty() && key != token.json_name && key != token.name) next.append(pair).append("&");
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return next + token.json_name + "=";
}

}  // namespace

bool is_public_health_path(std::string_view path) {
  return std::ranges::find(kPublicHealth, path) != kPublicHealth.end();
}
bool is_detailed_health_path(std::string_view path) {
  return std::ranges::find(kDetailedHealth, path) != kDetailedHealth.end();
}

class RestDoor::Router final : public HttpHandler {
 public:
  Router(RestDoorOptions options, call::Pipeline& pipeline, const Clock& clock, MetricsRegistry& metrics,
         HealthSource& health)
      : options_(std::move(options)),
        pipeline_(pipeline),
        clock_(clock),
        metrics_(metrics),
        health_(health),
        routes_(call::RouteTable::get()),
        pages_({.version = options_.version, .handlers = options_.handlers, .directory = options_.pages_directory}) {}

  BodyMode body_mode(const HttpRequest& head) override {
    const call::RouteMatch match = routes_.match(head.verb, head.path);
    const bool found = match.outcome == call::RouteMatch::Outcome::kFound;
    return found && match.method().client_streaming ? BodyMode::kStreamed : BodyMode::kBuffered;
  }

  void handle(HttpRequest request, HttpExchangePtr inner) override {
    EdgeOptions edge = edge_of(request);
    const bool preflight = request.verb == "OPTIONS" && !request.header("access-control-request-method").empty();
    const bool allowed = !edge.allow_origin.empty();
    const HttpExchangePtr exchange = std::make_shared<EdgeExchange>(std::move(inner), std::move(edge));
    if (preflight && allowed) return exchange->respond(preflight_answer());
    if (Status status = decode_body(request); !status.is_ok())
      return exchange->respond(problem(status, call_id_of(request)));
    if (request.path == kBatchPath) return batch(request, exchange);
    if (ApiPages::has(request.path)) return exchange->respond(pages_.answer(request, call_id_of(request)));
    route(std::move(request), exchange);
  }

  void route(HttpRequest request, const HttpExchangePtr& exchange) {
    if (is_public_health_path(request.path)) return exchange->respond(public_health(request));
    if (is_detailed_health_path(request.path)) return detailed_health(request, exchange);
    const bool options_asked = request.verb == "OPTIONS";
    const call::RouteMatch match = routes_.match(request.verb, request.path);
    const std::string call_id = call_id_of(request);
    switch (match.outcome) {
      case call::RouteMatch::Outcome::kFound: return run(match, request, exchange);
      case call::RouteMatch::Outcome::kMethodNotAllowed: {
        std::string allow = match.allow;
        if (allow.find("GET") != std::string::npos) allow += ", HEAD";
        allow += ", OPTIONS";
        if (options_asked) return exchange->respond({204, {{"Allow", allow}}, {}});
        HttpResponse response = problem(Status(Code::kInvalid, "METHOD_NOT_ALLOWED",
                                               request.path + " takes " + match.allow + ", not " + request.verb),
                                        call_id);
        response.headers.emplace_back("Allow", allow);
        return exchange->respond(std::move(response));
      }
      case call::RouteMatch::Outcome::kBadPath:
        return exchange->respond(
            problem(Status(Code::kInvalid, "PATH_INVALID", "the path is not percent-encoded correctly"), call_id));
      case call::RouteMatch::Outcome::kNotFound: break;
    }
    exchange->respond(problem(Status(Code::kNotFound, "ROUTE_NOT_FOUND",
                                     "there is no path " + request.path.substr(0, 200) + "; /openapi.json lists all")
                                  .with_resource("path", request.path.substr(0, 200)),
                              call_id));
  }

  HttpResponse refusal(int status, std::string_view reason, std::string_view detail) override {
    const Code code = status == 503 ? Code::kUnavailable : status == 408 ? Code::kDeadline : Code::kInvalid;
    count(status);
    Status error(code, reason, std::string(detail));
    if (status == 503) error = std::move(error).with_retry_after_ms(1000);
    return problem_response(error, {});
  }

 private:
  // The id of the client, or one of our own.
  std::string call_id_of(const HttpRequest& request) {
    const std::string_view given = request.header("x-request-id");
    if (is_call_id(given)) return std::string(given);
    const uint64_t seed = hash64(request.address + request.path + std::to_string(clock_.wall().us));
    return to_hex(ByteWriter().u64(seed).u64(made_ids_.fetch_add(1)).data());
  }

  EdgeOptions edge_of(const HttpRequest& request) const {
    EdgeOptions edge;
    edge.encoding = accepted_encoding(request.header("accept-encoding"));
    edge.cors = !options_.cors_origins.empty();
    const std::string_view origin = request.header("origin");
    const bool allowed =
        std::ranges::any_of(options_.cors_origins, [&](const std::string& one) { return one == "*" || one == origin; });
    if (!origin.empty() && allowed) edge.allow_origin = origin;
    return edge;
  }

  static HttpResponse preflight_answer() {
    return {204,
            {{"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"},
             {"Access-Control-Allow-Headers",
              "authorization, content-type, idempotency-key, if-match, if-none-match, "
              "last-event-id, traceparent, uccp-consistency, x-request-id"},
             {"Access-Control-Max-Age", "600"}},
            {}};
  }

  Status decode_body(HttpRequest& request) {
    if (!request.has_body) return Status::ok();
    UCCP_TRY(const Encoding encoding, content_encoding(media_type(request.header("content-encoding"))));
    if (encoding == Encoding::kNone) return Status::ok();
    if (body_mode(request) == BodyMode::kStreamed) {
      return Status(Code::kInvalid, "MEDIA_TYPE_UNSUPPORTED",
                    "streams are taken as they are, without a content encoding");
    }
    UCCP_TRY(request.body, decode(encoding, std::move(request.body), options_.http.body_bytes_max));
    return Status::ok();
  }

  void batch(const HttpRequest& request, const HttpExchangePtr& exchange) {
    const std::string call_id = call_id_of(request);
    if (request.verb != "POST") {
      HttpResponse response =
          problem(Status(Code::kInvalid, "METHOD_NOT_ALLOWED", request.path + " takes POST"), call_id);
      response.headers.emplace_back("Allow", "POST, OPTIONS");
      if (request.verb == "OPTIONS") response = {204, {{"Allow", "POST, OPTIONS"}}, {}};
      return exchange->respond(std::move(response));
    }
    if (const std::string type = media_type(request.header("content-type")); !is_json(type)) {
      return exchange->respond(
          problem(Status(Code::kInvalid, "MEDIA_TYPE_UNSUPPORTED", "a batch is application/json"), call_id));
    }
    Batch::begin(request, call_id, exchange, [this](HttpRequest part, const HttpExchangePtr& way) {
      const call::RouteMatch match = routes_.match(part.verb, part.path);
      const bool streams = match.outcome == call::RouteMatch::Outcome::kFound &&
                           (match.method().server_streaming || match.method().client_streaming);
      if (!streams) return route(std::move(part), way);
      way->respond(problem(
          Status(Code::kInvalid, "BATCH_STREAM", match.method().name + " streams and cannot be part of a batch"),
          call_id_of(part)));
    });
  }

  void run(const call::RouteMatch& match, HttpRequest& request, const HttpExchangePtr& exchange) {
    const call::Method& method = match.method();
    const std::string call_id = call_id_of(request);
    if (method.client_streaming && method.server_streaming) {
      return exchange->respond(
          problem(Status(Code::kUnimplemented, "STREAM_NEEDS_GRPC",
                         method.name + " streams in both directions, which HTTP/1.1 cannot; use gRPC"),
                  call_id));
    }
    if (Status status = check_media_type(method, request); !status.is_ok())
      return exchange->respond(problem(status, call_id));
    const auto query = call::parse_query(request.query);
    if (!query) return exchange->respond(problem(query.error(), call_id));

    RestCallOptions options;
    options.binding = match.binding;
    options.head = request.verb == "HEAD";
    options.heartbeat_ms = options_.heartbeat_ms;
    options.if_none_match = request.header("if-none-match");
    options.next_page = next_page_of(*match.binding, request);
    if (method.server_streaming)
      options.form = choose_form(method, request.header("accept"), request.path == kSubscribePath);
    auto call = make_call(request);
    call->method = &method;
    for (const auto& [name, value] : *query) {
      if (name == "pretty") options.pretty = value != "false" && value != "0";
      if (name == "consistency") call->consistency = value;
      if (name == "namespace") call->default_namespace = value;
    }
    std::string bytes;
    if (!method.client_streaming) {
      auto built = call::build_request(match, *query, request.body, kReserved);
      Status status = built ? take_dry_run(*query, call->dry_run) : std::move(built.error());
      if (status.is_ok()) {
        bytes = std::move(*built);
        fill_from_headers(method, request, bytes);
        options.only = asked_fields(method, bytes);
      } else {
        options.build_error = std::move(status);
        bytes = kMalformed;
      }
    }
    std::make_shared<RestCall>(exchange, std::move(options))
        ->dispatch(pipeline_, std::move(call), std::move(bytes), clock_);
  }

  static Status take_dry_run(call::QueryPairs query, bool& dry_run) {
    for (const auto& [name, value] : query) {
      if (name != "dryRun") continue;
      if (value != "true" && value != "false" && !value.empty()) {
        Status status(Code::kInvalid, "FIELD_INVALID", "dryRun is true or false");
        return std::move(status).with_field("dryRun", "is true or false", "true");
      }
      dry_run = value != "false";
    }
    return Status::ok();
  }

  static Status check_media_type(const call::Method& method, const HttpRequest& request) {
    if (!request.has_body) return Status::ok();
    const std::string type = media_type(request.header("content-type"));
    const bool fits = method.client_streaming ? is_ndjson(type) : is_json(type);
    if (fits) return Status::ok();
    return Status(Code::kInvalid, "MEDIA_TYPE_UNSUPPORTED",
                  "the content type '" + type.substr(0, 100) + "' is not taken; send " +
                      (method.client_streaming ? "application/x-ndjson, one message a line" : "application/json"));
  }

  static call::CallPtr make_call(const HttpRequest& request) {
    auto call = std::make_shared<call::Call>();
    call->door = call::Call::Door::kRest;
    call->credentials = {bearer_of(request.header("authorization")), request.certificate_pem, request.address};
    call->call_id = request.header("x-request-id");
    call->traceparent = request.header("traceparent");
    call->consistency = request.header("uccp-consistency");
    call->request_id = request.header("idempotency-key");
    return call;
  }

  // Headers that stand for request fields, where the request has not set them.
  static void fill_from_headers(const call::Method& method, const HttpRequest& request, std::string& bytes) {
    const auto fill = [&](const call::FieldPath& path, std::string_view value) {
      if (!path.empty() && !value.empty() && !call::has_field(path, bytes)) call::set_string(path, bytes, value);
    };
    fill(method.resume, request.header("last-event-id"));
    // "*" asks only that there is one, which any change of one needs.
    if (request.header("if-match") != "*") fill(method.if_match, unquoted(request.header("if-match")));
  }

  HttpResponse public_health(const HttpRequest& request) {
    if (request.verb != "GET" && request.verb != "HEAD") {
      HttpResponse response = problem(Status(Code::kInvalid, "METHOD_NOT_ALLOWED", request.path + " takes GET"), {});
      response.headers.emplace_back("Allow", "GET, HEAD");
      return response;
    }
    return health_response(request.path);
  }

  HttpResponse health_response(const std::string& path) {
    HealthReport report = health_.report(path);
    return {report.http_status,
            {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}},
            std::move(report.json)};
  }

  // The caller's right is that to call a method: so it is called, and its success answers the document.
  void detailed_health(const HttpRequest& request, const HttpExchangePtr& exchange) {
    const call::Method* method = call::Contract::get().find(options_.detailed_health_method);
    if (request.verb != "GET" && request.verb != "HEAD") return exchange->respond(public_health(request));
    if (method == nullptr) {
      return exchange->respond(
          problem(Status(Code::kUnimplemented, "HEALTH_UNAVAILABLE", "detailed health is not offered"), {}));
    }
    RestCallOptions options;
    options.binding = &method->bindings.front();
    options.head = request.verb == "HEAD";
    options.instead = [this, path = request.path] { return health_response(path); };
    auto call = make_call(request);
    call->method = method;
    std::make_shared<RestCall>(exchange, std::move(options))->dispatch(pipeline_, std::move(call), {}, clock_);
  }

  HttpResponse problem(const Status& status, const std::string& call_id) {
    HttpResponse response = problem_response(status, call_id);
    count(response.status);
    return response;
  }

  // Requests that never became calls, which the pipeline therefore cannot count.
  void count(int status) {
    metrics_
        .counter("uccp_http_unrouted_total", "HTTP requests answered before they became calls",
                 {{"status", std::to_string(status)}})
        .add();
  }

  const RestDoorOptions options_;
  call::Pipeline& pipeline_;
  const Clock& clock_;
  MetricsRegistry& metrics_;
  HealthSource& health_;
  const call::RouteTable& routes_;
  const ApiPages pages_;
  std::atomic<uint64_t> made_ids_{0};
};

RestDoor::RestDoor() = default;
RestDoor::~RestDoor() { stop(0); }

Result<uint16_t> RestDoor::start(RestDoorOptions options, call::Pipeline& pipeline, const Clock& clock,
                                 MetricsRegistry& metrics, HealthSource& health) {
  HttpServerOptions http = options.http;
  router_ = std::make_unique<Router>(std::move(options), pipeline, clock, metrics, health);
  return server_.start(std::move(http), *router_, clock, metrics);
}

void RestDoor::stop(int64_t grace_ms) { server_.stop(grace_ms); }

}  // namespace uccp::doors
