#include "doors/rest/edge_exchange.h"

#include <algorithm>
#include <utility>

#include "doors/net/encoding.h"

namespace uccp::doors {
namespace {

constexpr std::string_view kExposed =
    "ETag, Link, Location, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, Uccp-Session, "
    "X-Request-Id";

std::string* header_of(HttpResponse& response, std::string_view name) {
  const auto at =
      std::ranges::find(response.headers, name, [](const auto& header) { return std::string_view(header.first); });
  return at == response.headers.end() ? nullptr : &at->second;
}

bool is_text(std::string_view type) {
  return type.starts_with("text/") || type.find("json") != std::string_view::npos ||
         type.find("javascript") != std::string_view::npos;
}

void compress(Encoding encoding, HttpResponse& response) {
  const std::string* type = header_of(response, "Content-Type");
  if (type == nullptr || !is_text(*type) || response.body.size() <= kEncodedBytesMin) return;
  response.headers.emplace_back("Vary", "Accept-Encoding");
  if (encoding == Encoding::kNone || header_of(response, "Content-Encoding") != nullptr) return;
  response.body = encode(encoding, std::move(response.body));
  response.headers.emplace_back("Content-Encoding", encoding_name(encoding));
  // The tag names the content, which has other bytes now.
  if (std::string* etag = header_of(response, "ETag"); etag != nullptr && !etag->starts_with("W/"))
    etag->insert(0, "W/");
}

void allow_origin(const EdgeOptions& options, HttpResponse& response) {
  if (!options.cors) return;
  response.headers.emplace_back("Vary", "Origin");
  if (options.allow_origin.empty()) return;
  response.headers.emplace_back("Access-Control-Allow-Origin", options.allow_origin);
  response.headers.emplace_back("Access-Control-Expose-Headers", kExposed);
}

}  // namespace

void finish_at_edge(const EdgeOptions& options, HttpResponse& response) {
  compress(options.encoding, response);
  allow_origin(options, response);
}

void EdgeExchange::respond(HttpResponse response) {
  finish_at_edge(options_, response);
  inner_->respond(std::move(response));
}

void EdgeExchange::start(HttpResponse head) {
  allow_origin(options_, head);
  inner_->start(std::move(head));
}

}  // namespace uccp::doors
