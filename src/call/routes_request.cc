// build_request: body, path variables and query parameters into one request message.
#include <fmt/format.h>

#include <algorithm>

#include "call/json_codec.h"
#include "call/json_codec_text.h"
#include "call/routes.h"

namespace uccp::call {
namespace {

std::unexpected<Status> field_error(std::string path, std::string what, std::string example = {}) {
  Status status(Code::kInvalid, "FIELD_INVALID", path + " " + what);
  return std::unexpected(std::move(status).with_field(std::move(path), std::move(what), std::move(example)));
}

bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

Result<std::string> body_part(const RestBinding& binding, std::string_view body) {
  switch (binding.body) {
    case RestBinding::Body::kAll: return json_to_wire(*binding.method->request, body);
    case RestBinding::Body::kField: return blank(body) ? std::string() : json_to_field(*binding.body_field, body);
    case RestBinding::Body::kNone: break;
  }
  if (blank(body)) return std::string();
  // Some clients send the parameters of a DELETE in its body.
  if (binding.verb == "DELETE") return json_to_wire(*binding.method->request, body);
  return fail(Code::kInvalid, "JSON_INVALID",
              binding.verb + " " + binding.path + " takes no body; use query parameters");
}

// Encodes `text` for the leaf of `path` and puts it in its place.
Status put_text(const FieldPath& path, std::string_view text, std::string& out) {
  std::string encoded;
  UCCP_RETURN_IF_ERROR(text_to_field(path.leaf(), text, path.text(), encoded));
  append_at(path, out, encoded);
  return Status::ok();
}

Status put_variable(const Variable& variable, std::string& out) {
  const std::optional<std::string> present = get_text(*variable.path, out);
  if (present && !present->empty() && *present != variable.value) {
    std::string what = "in the body differs from the path";
    if (!variable.path->leaf().redact)
      what.append(fmt::format(": {} and {}", excerpt(*present), excerpt(variable.value)));
    return std::move(field_error(variable.path->text(), std::move(what))).error();
  }
  return put_text(*variable.path, variable.value, out);
}

Result<FieldPath> query_path(const Method& method, std::string_view key) {
  auto path = FieldPath::compile(*method.request, key);
  if (path) return path;
  if (key == "namespace" && !method.name_space.empty()) return method.name_space;
  std::string hint = "is not a query parameter of this path";
  if (const FieldPlan* near = method.request->nearest(key))
    hint.append("; did you mean ").append(near->json_name).append("?");
  return field_error(std::string(key.substr(0, 64)), std::move(hint));
}

Status put_query(const Method& method, std::string_view key, std::string_view value, std::string& out) {
  UCCP_TRY(const FieldPath path, query_path(method, key));
  const FieldPlan& leaf = path.leaf();
  if (leaf.is_map()) return field_error(path.text(), "is a map and cannot be a query parameter; use the body").error();
  if (leaf.output_only) return Status::ok();
  if (!leaf.is_repeated() && has_field(path, out)) {
    return field_error(path.text(), "is given more than once, in the query, the path or the body").error();
  }
  return put_text(path, value, out);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<std::string> build_request(const RouteMatch& match, QueryPairs query, std::string_view body,
                                  std::span<const std::string_view> reserved) {
  const Method& method = match.method();
  UCCP_TRY(std::string out, body_part(*match.binding, body));
  for (const Variable& variable : match.variables) UCCP_RETURN_IF_ERROR(put_variable(variable, out));
  for (const auto& [key, value] : query) {
    if (std::find(reserved.begin(), reserved.end(), key) != reserved.end()) continue;
    UCCP_RETURN_IF_ERROR(put_query(method, key, value, out));
  }
  return out;
}

Result<std::string> percent_decode(std::string_view text, PlusSign plus) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus == PlusSign::kSpace) {
      out.push_back(' ');
    } else if (text[i] != '%') {
      out.push_back(text[i]);
    } else {
      const int high = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0)
        return fail(Code::kInvalid, "PATH_INVALID", "a % without two hexadecimal digits in " + excerpt(text));
      out.push_back(static_cast<char>(high << 4 | low));
      i += 2;
    }
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
                       c == '.' || c == '_' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
      out.push_back(kDigits[c & 15]);
    }
  }
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    if (pair.empty()) continue;
    const size_t equals = pair.find('=');
    UCCP_TRY(std::string key, percent_decode(pair.substr(0, equals), PlusSign::kSpace));
    UCCP_TRY(std::string value,
             percent_decode(equals == std::string_view::npos ? "" : pair.substr(equals + 1), PlusSign::kSpace));
    pairs.emplace_back(std::move(key), std::move(value));
  }
  return pairs;
}

}  // namespace uccp::call
