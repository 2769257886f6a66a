// Routes: from verb and path of an HTTP request to a method, and from its parts to request bytes.
//
// The path is split at '/' before anything is decoded, so `%2F` belongs to a name. Literal segments beat variables,
// variables beat `**`. A custom verb (":try") is what follows the last ':' of the path, if some route there has it;
// otherwise the ':' belongs to the name. HEAD is routed as GET.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "call/contract.h"
#include "call/method.h"

namespace uccp::call {

struct Variable {
  const FieldPath* path = nullptr;
  std::string value;  // percent-decoded
};

struct RouteMatch {
  enum class Outcome : uint8_t { kFound, kNotFound, kMethodNotAllowed, kBadPath };
  Outcome outcome = Outcome::kNotFound;
  const RestBinding* binding = nullptr;
  std::vector<Variable> variables;
  std::string allow;  // "GET, POST" with kMethodNotAllowed

  const Method& method() const { return *binding->method; }
};

using QueryPairs = std::span<const std::pair<std::string, std::string>>;

class RouteTable {
 public:
  // Two bindings with the same verb and shape abort: that is a defect of the contract.
  explicit RouteTable(const Contract& contract);
  ~RouteTable();
  // That of Contract::get().
  static const RouteTable& get();

  // `path` is the raw path, without the query.
  RouteMatch match(std::string_view verb, std::string_view path) const;

 private:
  struct Node;
  struct Search;
  std::unique_ptr<Node> root_;
};

// The request message of a matched REST call. `query` is decoded. `reserved` names query parameters that the door
// handles itself (`consistency`, ...). `body` is JSON; empty: none. A query parameter `namespace` reaches the namespace
// of the body's resource too. A path variable must equal the same field of the body if that is set.
// Errors: invalid JSON_INVALID, FIELD_INVALID.
Result<std::string> build_request(const RouteMatch& match, QueryPairs query, std::string_view body,
                                  std::span<const std::string_view> reserved = {});

// Replaces %XX. Errors: invalid PATH_INVALID. `+` stays in paths and becomes a space with PlusSign::kSpace (queries).
enum class PlusSign : uint8_t { kLiteral, kSpace };
Result<std::string> percent_decode(std::string_view text, PlusSign plus = PlusSign::kLiteral);
std::string percent_encode(std::string_view text);  // all but unreserved characters of RFC 3986
// "a=1&b=x%20y" into decoded pairs, in order.
Result<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view query);

}  // namespace uccp::call
