#include "doors/rest/batch.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/json.h"
#include "doors/rest/problem.h"

namespace uccp::doors {
namespace {

using simdjson::dom::element;

constexpr std::array<std::string_view, 5> kVerbs = {"GET", "POST", "PUT", "PATCH", "DELETE"};
constexpr std::array<std::string_view, 5> kHeaders = {"idempotency-key", "if-match", "if-none-match",
                                                      "uccp-consistency", "x-request-id"};

std::unexpected<Status> wrong(size_t index, std::string_view field, std::string what) {
  std::string path = "requests[" + std::to_string(index) + "]" + std::string(field);
  Status status(Code::kInvalid, "FIELD_INVALID", path + " " + what);
  return std::unexpected(std::move(status).with_field(std::move(path), std::move(what)));
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

Status put_headers(const element& value, size_t index, HttpRequest& request) {
  simdjson::dom::object headers;
  if (value.get(headers) != simdjson::SUCCESS) return wrong(index, ".headers", "must be an object of texts").error();
  for (const auto [key, member] : headers) {
    const std::string name = lower(key);
    std::string_view text;
    if (member.get(text) != simdjson::SUCCESS) return wrong(index, ".headers", "must be an object of texts").error();
    if (std::ranges::find(kHeaders, name) == kHeaders.end()) {
      return wrong(index, ".headers",
                   "takes Idempotency-Key, If-Match, If-None-Match, Uccp-Consistency and X-Request-Id only")
          .error();
    }
    request.headers.emplace_back(name, std::string(text));
  }
  return Status::ok();
}

Result<HttpRequest> read_part(const element& item, size_t index) {
  simdjson::dom::object object;
  if (item.get(object) != simdjson::SUCCESS) return wrong(index, "", "must be an object");
  HttpRequest request;
  for (const auto [key, value] : object) {
    std::string_view text;
    if (key == "method") {
      if (value.get(text) != simdjson::SUCCESS || std::ranges::find(kVerbs, text) == kVerbs.end()) {
        return wrong(index, ".method", "must be GET, POST, PUT, PATCH or DELETE");
      }
      request.verb = text;
    } else if (key == "path") {
      const bool plain = value.get(text) == simdjson::SUCCESS && text.starts_with("/api/v1/") &&
                         std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127; });
      if (!plain) return wrong(index, ".path", "must be a path below /api/v1/, percent-encoded");
      const size_t question = text.find('?');
      request.path = text.substr(0, question);
      if (question != std::string_view::npos) request.query = text.substr(question + 1);
      if (request.path == kBatchPath) return wrong(index, ".path", "must not be a batch again");
    } else if (key == "headers") {
      UCCP_RETURN_IF_ERROR(put_headers(value, index, request));
    } else if (key == "body") {
      if (value.is_null()) continue;
      request.body = simdjson::to_string(value);
      request.has_body = true;
    } else {
      return wrong(index, "." + std::string(key.substr(0, 64)),
                   "is not known; there are method, path, headers and body");
    }
  }
  if (request.verb.empty()) return wrong(index, ".method", "is required");
  if (request.path.empty()) return wrong(index, ".path", "is required");
  return request;
}

Result<std::vector<HttpRequest>> read_parts(const std::string& body) {
  simdjson::dom::parser parser;
  element root;
  simdjson::dom::object object;
  if (parser.parse(body).get(root) != simdjson::SUCCESS || root.get(object) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "JSON_INVALID", "the body is not a JSON object");
  }
  std::vector<HttpRequest> parts;
  for (const auto [key, value] : object) {
    simdjson::dom::array items;
    if (key != "requests" || value.get(items) != simdjson::SUCCESS) {
      return fail(Status(Code::kInvalid, "FIELD_INVALID", "a batch has one field, the list `requests`")
                      .with_field(std::string(key.substr(0, 64)), "a batch has one field, the list `requests`"));
    }
    for (const element item : items) {
      if (parts.size() == Batch::kRequestsMax)
        return wrong(parts.size(), "", "is one too many: a batch has at most 100 requests");
      UCCP_TRY(parts.emplace_back(), read_part(item, parts.size()));
    }
  }
  if (parts.empty()) {
    return fail(Status(Code::kInvalid, "FIELD_INVALID", "requests must have 1 to 100 items")
                    .with_field("requests", "must have 1 to 100 items"));
  }
  return parts;
}

std::string part_json(const HttpResponse& response) {
  // A header may occur more than once.
  std::map<std::string, std::string> headers;
  bool is_json = false;
  for (const auto& [name, value] : response.headers) {
    std::string& all = headers[name];
    all.append(all.empty() ? "" : ", ").append(value);
    if (name == "Content-Type") is_json = value.find("json") != std::string::npos;
  }
  JsonWriter json;
  json.begin_object().key("status").value(response.status).key("headers").begin_object();
  for (const auto& [name, value] : headers) json.key(name).value(value);
  json.end_object();
  if (!response.body.empty()) {
    json.key("body");
    if (is_json) json.raw(response.body);
    else json.value(response.body);
  }
  return json.end_object().take();
}

}  // namespace

// The way to answer one request of the batch.
class Batch::Part final : public HttpExchange {
 public:
  explicit Part(std::shared_ptr<Batch> batch) : batch_(std::move(batch)), outer_(batch_->exchange_) {}

  void set_events(HttpEvents events) override { events_ = std::move(events); }
  void respond(HttpResponse response) override {
    if (const auto batch = std::exchange(batch_, nullptr); batch != nullptr) batch->answered(std::move(response));
  }
  // Streams are refused before; this is for a handler that begins one nevertheless.
  void start(HttpResponse) override { abort(); }
  void write(std::string) override {}
  void end() override {}
  void abort() override {
    respond(problem_response(Status(Code::kInvalid, "BATCH_STREAM", "a stream cannot be part of a batch"), {}));
  }
  size_t queued_bytes() const override { return 0; }
  void post(std::move_only_function<void()> task) override { outer_->post(std::move(task)); }

  HttpEvents events_;

 private:
  std::shared_ptr<Batch> batch_;
  const HttpExchangePtr outer_;
};

void Batch::begin(const HttpRequest& outer, const std::string& call_id, HttpExchangePtr exchange, Run run) {
  if (outer.header("authorization").empty() && outer.certificate_pem.empty()) {
    return exchange->respond(
        problem_response(Status(Code::kUnauthenticated, "CREDENTIALS_MISSING",
                                "no credentials; send 'Authorization: Bearer TOKEN' or a client certificate"),
                         call_id));
  }
  auto parts = read_parts(outer.body);
  if (!parts) return exchange->respond(problem_response(parts.error(), call_id));
  for (size_t i = 0; i < parts->size(); ++i) {
    HttpRequest& part = (*parts)[i];
    part.address = outer.address;
    part.certificate_pem = outer.certificate_pem;
    for (const std::string_view name : {"authorization", "traceparent"}) {
      if (const auto value = outer.header(name); !value.empty()) part.headers.emplace_back(name, value);
    }
    if (part.header("x-request-id").empty())
      part.headers.emplace_back("x-request-id", call_id + "-" + std::to_string(i));
  }
  const auto batch = std::make_shared<Batch>(std::move(*parts), call_id, std::move(exchange), std::move(run));
  batch->set_events();
  batch->advance();
}

void Batch::set_events() {
  HttpEvents events;
  events.on_closed = [self = shared_from_this()] {
    const auto part = std::exchange(self->part_, nullptr);
    self->exchange_.reset();
    if (part != nullptr && part->events_.on_closed) part->events_.on_closed();
  };
  events.on_tick = [self = shared_from_this()](BootTime now) {
    const auto part = self->part_;
    if (part != nullptr && part->events_.on_tick) part->events_.on_tick(now);
  };
  exchange_->set_events(std::move(events));
}

HttpRequest Batch::credentials_check() const {
  HttpRequest check = requests_.front();
  check.verb = "GET";
  check.path = "/api/v1/health";
  check.query.clear();
  check.body.clear();
  check.has_body = false;
  return check;
}

// Entered again when a request is answered at once: then the outer one goes on.
void Batch::advance() {
  if (advancing_) return;
  advancing_ = true;
  while (exchange_ != nullptr && !waiting_ && at_ < requests_.size()) {
    waiting_ = true;
    part_ = std::make_shared<Part>(shared_from_this());
    run_(checking_ ? credentials_check() : std::move(requests_[at_]), part_);
  }
  advancing_ = false;
  if (exchange_ != nullptr && !waiting_) finish();
}

void Batch::answered(HttpResponse response) {
  if (exchange_ == nullptr) return;
  part_.reset();
  // All parts have the credentials of the batch: what is wrong with them is wrong with it.
  if (response.status == 401) {
    const auto exchange = std::exchange(exchange_, nullptr);
    return exchange->respond(std::move(response));
  }
  if (std::exchange(checking_, false)) {
    waiting_ = false;
    return advance();
  }
  answers_.append(answers_.empty() ? "" : ",").append(part_json(response));
  ++at_;
  waiting_ = false;
  if (answers_.size() > kAnswerBytesMax) {
    const std::string rest = part_json(problem_response(
        Status(Code::kExhausted, "BATCH_TOO_LARGE", "not done: the answers before it have more than 16 MiB"),
        call_id_));
    for (; at_ < requests_.size(); ++at_) answers_.append(",").append(rest);
  }
  advance();
}

void Batch::finish() {
  const auto exchange = std::exchange(exchange_, nullptr);
  HttpResponse response;
  response.headers = {{"Content-Type", "application/json"},
                      {"Cache-Control", "no-store"},
                      {"X-Content-Type-Options", "nosniff"},
                      {"X-Request-Id", call_id_}};
  response.body = "{\"responses\":[" + answers_ + "]}";
  exchange->respond(std::move(response));
}

}  // namespace uccp::doors
