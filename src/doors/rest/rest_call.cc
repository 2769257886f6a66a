#include "doors/rest/rest_call.h"

#include <algorithm>

#include "base/limits.h"
#include "call/json_codec.h"
#include "call/method.h"
#include "call/routes.h"
#include "doors/deadline.h"
#include "doors/rest/problem.h"

namespace uccp::doors {
namespace {

// True if one of the entity tags of If-None-Match is `etag` (weak comparison) or it is "*".
bool matches_etag(std::string_view header, std::string_view etag) {
  if (header == "*") return true;
  const std::string quoted = "\"" + std::string(etag) + "\"";
  return !etag.empty() && header.find(quoted) != std::string_view::npos;
}

// The bytes of one field of a message as its own JSON: `response_body`.
Result<std::string> field_json(const call::FieldPlan& field, std::string_view message,
                               const call::JsonOptions& options) {
  std::string inner;
  call::WireReader reader(message);
  for (call::WireField part; reader.next(part);) {
    if (part.number == field.number) inner.append(part.bytes);
  }
  return call::wire_to_json(*field.message, inner, options);
}

// Where the caller finds what was made: the path of the method, and namespace and tenant if they are not the caller's
// own.
std::string place_of(const call::Call& call, std::string_view message, std::string_view tenant) {
  const call::Method& method = *call.method;
  std::string place = call::location_of(method, message);
  if (place.empty()) return place;
  const auto add = [&](std::string_view name, std::string_view value) {
    place.append(place.find('?') == std::string::npos ? "?" : "&")
        .append(name)
        .append("=")
        .append(call::percent_encode(value));
  };
  const bool own = call.name_space == "default" && call.principal.namespaces.empty();
  if (!own && !method.name_space.empty() && method.location.find("{namespace}") == std::string::npos) {
    add("namespace", call.name_space);
  }
  if (!tenant.empty() && tenant != call.principal.tenant) add("tenant", tenant);
  return place;
}

}  // namespace

void RestCall::dispatch(call::Pipeline& pipeline, call::CallPtr call, std::string request, const Clock& clock) {
  const auto self = shared_from_this();
  started_ = written_ = clock.boot();
  {
    std::lock_guard lock(mutex_);
    call_ = call;
    poster_ = exchange_;
  }
  call->sink = self;
  set_events();
  if (!call->method->location.empty()) {
    const auto tenant = call::FieldPath::compile(*call->method->request, "tenant");
    if (tenant) tenant_ = call::get_text(*tenant, request).value_or("");
  }
  pipeline.dispatch(call, std::move(request));
}

void RestCall::set_events() {
  HttpEvents events;
  const auto self = shared_from_this();
  if (options_.binding->method->client_streaming) {
    events.on_body = [self](std::string_view chunk) { self->on_lines(chunk); };
    events.on_body_end = [self] {
      if (self->exchange_ != nullptr && !self->line_.empty()) self->on_line(std::exchange(self->line_, {}));
      if (const call::CallPtr call = self->call_; call != nullptr) call->deliver_half_close();
    };
  }
  events.on_closed = [self] { self->on_closed(); };
  events.on_drain = [self] {
    const call::CallPtr call = self->call_;
    if (call != nullptr && self->streams_out()) call->deliver_drain();
  };
  events.on_tick = [self](BootTime now) { self->on_tick(now); };
  exchange_->set_events(std::move(events));
}

void RestCall::on_lines(std::string_view chunk) {
  while (!chunk.empty() && exchange_ != nullptr) {
    const size_t end = chunk.find('\n');
    line_.append(chunk.substr(0, end));
    // Base64 makes the line of a full message a third longer.
    if (line_.size() > 2 * limits::kMessageBytesMax) {
      const call::CallPtr call = call_;
      return call->finish(
          Status(Code::kInvalid, "REQUEST_TOO_LARGE", "a line of the upload is larger than a message may be"));
    }
    if (end == std::string_view::npos) return;
    chunk.remove_prefix(end + 1);
    on_line(std::exchange(line_, {}));
  }
}

void RestCall::on_line(std::string_view line) {
  ++line_number_;
  // Held here: the end of the call drops it from this object.
  const call::CallPtr call = call_;
  if (line.find_first_not_of(" \t\r") == std::string_view::npos || call->finished()) return;
  auto message = call::json_to_wire(*options_.binding->method->request, line);
  if (!message) {
    const Status& error = message.error();
    Status located(error.code(), error.reason(), "line " + std::to_string(line_number_) + ": " + error.message());
    for (const FieldViolation& field : error.detail().fields) {
      located = std::move(located).with_field(field.field, field.description, field.example);
    }
    return call->finish(std::move(located));
  }
  call->deliver_message(std::move(*message));
}

void RestCall::on_tick(BootTime now) {
  if (exchange_ == nullptr) return;
  // Keeps the call while its end drops it.
  const call::CallPtr call = call_;
  if (call->deadline && now >= *call->deadline) return end_at_deadline(*call);
  if (!streams_out()) return;
  if (!started_stream_) {
    if (now.ms_since(started_) >= kHeaderAfterMs) start_stream();
  } else if (now.ms_since(written_) >= options_.heartbeat_ms) {
    written_ = now;
    if (exchange_->queued_bytes() == 0) exchange_->write(stream_heartbeat(options_.form));
  }
}

void RestCall::on_closed() {
  const call::CallPtr call = call_;
  if (call == nullptr) return;
  complete();
  call->deliver_cancel();
  call->finish(Status(Code::kCancelled, "CANCELLED", "the client closed the connection"));
}

void RestCall::send(std::string message) {
  {
    std::lock_guard lock(mutex_);
    if (outcome_ || poster_ == nullptr || overflow_) return;
    queued_bytes_ += message.size();
    if (queued_bytes_ + poster_->queued_bytes() > kQueueBytesMax) overflow_ = true;
    else queue_.push_back(std::move(message));
  }
  // A unary answer leaves together with its outcome.
  if (streams_out() || overflow_) poke();
}

void RestCall::finish(Status status) {
  {
    std::lock_guard lock(mutex_);
    if (outcome_) return;
    if (options_.build_error && status.reason() == "WIRE_INVALID") status = *options_.build_error;
    outcome_ = std::move(status);
  }
  poke();
}

size_t RestCall::queued_bytes() const {
  std::lock_guard lock(mutex_);
  return queued_bytes_ + (poster_ != nullptr ? poster_->queued_bytes() : 0);
}

void RestCall::poke() {
  HttpExchangePtr exchange;
  {
    std::lock_guard lock(mutex_);
    if (poked_ || poster_ == nullptr) return;
    poked_ = true;
    exchange = poster_;
  }
  exchange->post([self = shared_from_this()] { self->flush(); });
}

void RestCall::flush() {
  std::deque<std::string> messages;
  std::optional<Status> outcome;
  bool overflow = false;
  {
    std::lock_guard lock(mutex_);
    poked_ = false;
    messages.swap(queue_);
    queued_bytes_ = 0;
    outcome = outcome_;
    overflow = overflow_;
  }
  if (exchange_ == nullptr) return;
  if (!streams_out()) {
    if (!messages.empty()) answer_ = std::move(messages.front());
    if (outcome) answer(*outcome);
    return;
  }
  for (const std::string& message : messages) {
    if (!write_item(message)) return;
  }
  if (overflow && !outcome) {
    const call::CallPtr call = call_;
    call->deliver_cancel();
    return call->finish(Status(Code::kExhausted, "STREAM_TOO_SLOW",
                               "32 MiB wait for this client, which does not read them; resume from the last cursor"));
  }
  if (!outcome) return;
  if (!started_stream_ && !outcome->is_ok()) return answer(*outcome);
  end_stream(*outcome);
}

bool RestCall::write_item(const std::string& message) {
  start_stream();
  if (exchange_ == nullptr) return false;
  const call::Method& method = *options_.binding->method;
  auto item = stream_item(options_.form, method, message);
  if (!item) {
    const call::CallPtr call = call_;
    call->deliver_cancel();
    call->finish(item.error());
    return false;
  }
  if (options_.form == StreamForm::kBytes && !is_complete_end(method, message)) truncated_ = true;
  exchange_->write(std::move(*item));
  return true;
}

void RestCall::start_stream() {
  if (started_stream_) return;
  started_stream_ = true;
  HttpResponse head;
  head.headers = {{"Content-Type", std::string(content_type_of(options_.form))},
                  {"Cache-Control", "no-store"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"X-Accel-Buffering", "no"}};
  add_common(head);
  exchange_->start(std::move(head));
  if (!options_.head) return exchange_->write(stream_begin(options_.form));
  const call::CallPtr call = call_;
  complete();
  call->deliver_cancel();
  call->finish(Status(Code::kCancelled, "CANCELLED", "only the header was asked for"));
}

void RestCall::end_stream(const Status& outcome) {
  start_stream();
  if (exchange_ == nullptr) return;
  const HttpExchangePtr exchange = exchange_;
  if (!outcome.is_ok()) {
    exchange->write(stream_error(options_.form, outcome, call_->call_id));
    truncated_ = true;
  }
  complete();
  if (truncated_ && options_.form == StreamForm::kBytes) return exchange->abort();
  exchange->end();
}

void RestCall::answer(const Status& outcome) {
  const HttpExchangePtr exchange = exchange_;
  HttpResponse response;
  if (!outcome.is_ok()) {
    response = problem_response(outcome, call_->call_id);
    for (const auto& [name, value] : call_->headers()) response.headers.emplace_back(name, value);
  } else {
    response = options_.instead ? options_.instead() : success(answer_);
    add_common(response);
  }
  add_rate(response, outcome);
  complete();
  exchange->respond(std::move(response));
}

HttpResponse RestCall::success(const std::string& message) {
  const call::RestBinding& binding = *options_.binding;
  const call::Method& method = *binding.method;
  HttpResponse response;
  response.status = binding.rpc_path ? 200 : method.rest_success;
  response.headers.emplace_back("Cache-Control", method.cache_max_age_s == 0
                                                     ? "no-store"
                                                     : "private, max-age=" + std::to_string(method.cache_max_age_s));
  if (response.status == 201) {
    if (const std::string location = place_of(*call_, message, tenant_); !location.empty()) {
      response.headers.emplace_back("Location", location);
    }
  }
  if (!method.etag.empty()) {
    const auto etag = call::get_text(method.etag, message);
    if (etag && !etag->empty()) {
      response.headers.emplace_back("ETag", "\"" + *etag + "\"");
      if (binding.verb == "GET" && matches_etag(options_.if_none_match, *etag)) {
        response.status = 304;
        return response;
      }
    }
  }
  if (response.status == 204) return response;
  add_next_page(response, message);
  const call::JsonOptions json{.emit = call::Emit::kFacts,
                               .pretty = options_.pretty,
                               .only = options_.only ? &*options_.only : nullptr,
                               .always = method.items};
  const bool part = binding.response_field != nullptr && binding.response_field->is_message();
  auto body =
      part ? field_json(*binding.response_field, message, json) : call::wire_to_json(*method.response, message, json);
  if (!body) {
    return problem_response(
        Status(Code::kInternal, "RESPONSE_INVALID",
               "the answer of " + method.full_name + " cannot be written as JSON: " + body.error().message()),
        call_->call_id);
  }
  response.headers.emplace_back("Content-Type", "application/json");
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  response.body = std::move(*body);
  if (options_.pretty) response.body.push_back('\n');
  return response;
}

void RestCall::add_common(HttpResponse& response) const {
  response.headers.emplace_back("X-Request-Id", call_->call_id);
  for (const auto& [name, value] : call_->headers()) response.headers.emplace_back(name, value);
}

void RestCall::add_next_page(HttpResponse& response, const std::string& message) const {
  const auto& paging = options_.binding->method->paging;
  if (options_.next_page.empty() || !paging) return;
  const auto token = call::get_string(paging->next_page_token, message);
  if (!token || token->empty()) return;
  response.headers.emplace_back("Link", "<" + options_.next_page + call::percent_encode(*token) + ">; rel=\"next\"");
}

void RestCall::add_rate(HttpResponse& response, const Status& outcome) const {
  const call::RateState& rate = call_->rate;
  if (rate.limit <= 0) return;
  const bool refused = outcome.reason() == "RATE_LIMITED";
  // The same seconds as Retry-After.
  const int64_t reset_s = refused ? (std::max(outcome.detail().retry_after_ms, 1u) + 999) / 1000 : rate.reset_s;
  response.headers.emplace_back("RateLimit-Limit", std::to_string(rate.limit));
  response.headers.emplace_back("RateLimit-Remaining", std::to_string(refused ? 0 : rate.remaining));
  response.headers.emplace_back("RateLimit-Reset", std::to_string(reset_s));
}

void RestCall::complete() {
  // Breaks the cycles call - sink - call and exchange - events - this.
  std::lock_guard lock(mutex_);
  exchange_.reset();
  poster_.reset();
  call_.reset();
  queue_.clear();
  queued_bytes_ = 0;
}

}  // namespace uccp::doors
