#include "call/routes.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/check.h"

namespace uccp::call {
namespace {

constexpr size_t kSegmentsMax = 64;

struct Template {
  struct Segment {
    enum class Kind : uint8_t { kLiteral, kVariable, kRest };
    Kind kind;
    std::string text;  // the literal, or the field path
  };
  std::vector<Segment> segments;
  std::string custom;  // "try", or empty
};

// Parses "/api/v1/locks/{name}:try", "/x/{task.id}", "/x/{path=**}". Aborts on what the routes do not know.
Template parse_template(std::string_view path) {
  const std::string why = "path template " + std::string(path);
  UCCP_CHECK(path.starts_with('/'), why);
  Template parsed;
  const size_t colon = path.rfind(':');
  if (colon != std::string_view::npos && path.find_first_of("/}", colon) == std::string_view::npos) {
    parsed.custom = path.substr(colon + 1);
    path = path.substr(0, colon);
  }
  for (size_t at = 1; at <= path.size();) {
    size_t end = path.find('/', at);
    if (end == std::string_view::npos) end = path.size();
    std::string_view segment = path.substr(at, end - at);
    at = end + 1;
    UCCP_CHECK(!segment.empty(), why);
    using enum Template::Segment::Kind;
    if (segment.front() != '{') {
      UCCP_CHECK(segment.find_first_of("{}*") == std::string_view::npos, why);
      parsed.segments.push_back({kLiteral, std::string(segment)});
      continue;
    }
    UCCP_CHECK(segment.back() == '}', why);
    segment = segment.substr(1, segment.size() - 2);
    const size_t equals = segment.find('=');
    const std::string_view pattern = equals == std::string_view::npos ? "*" : segment.substr(equals + 1);
    UCCP_CHECK(pattern == "*" || pattern == "**", why);
    UCCP_CHECK(pattern == "*" || at > path.size(), why + ": ** only at the end");
    parsed.segments.push_back({pattern == "*" ? kVariable : kRest, std::string(segment.substr(0, equals))});
  }
  return parsed;
}

}  // namespace

struct RouteTable::Node {
  struct Leaf {
    const RestBinding* binding;
    std::string custom;
    std::vector<FieldPath> variables;  // in the order of the path
  };
  std::map<std::string, std::unique_ptr<Node>, std::less<>> literals;
  std::unique_ptr<Node> variable;
  std::unique_ptr<Node> rest;
  std::vector<Leaf> leaves;
};

RouteTable::RouteTable(const Contract& contract) : root_(std::make_unique<Node>()) {
  for (const Method& method : contract.methods()) {
    for (const RestBinding& binding : method.bindings) {
      const Template parsed = parse_template(binding.path);
      const std::string why = "route " + binding.verb + " " + binding.path + " of " + method.full_name;
      Node::Leaf leaf{&binding, parsed.custom, {}};
      Node* node = root_.get();
      for (const Template::Segment& segment : parsed.segments) {
        const bool literal = segment.kind == Template::Segment::Kind::kLiteral;
        auto& next = literal                                              ? node->literals[segment.text]
                     : segment.kind == Template::Segment::Kind::kVariable ? node->variable
                                                                          : node->rest;
        if (!next) next = std::make_unique<Node>();
        node = next.get();
        if (literal) continue;
        auto path = FieldPath::compile(*method.request, segment.text);
        UCCP_CHECK(path.has_value() && path->leaf().shape == Shape::kSingular, why + ": bad variable " + segment.text);
        leaf.variables.push_back(std::move(*path));
      }
      for (const Node::Leaf& other : node->leaves) {
        UCCP_CHECK(other.binding->verb != binding.verb || other.custom != parsed.custom,
                   why + " clashes with that of " + other.binding->method->full_name);
      }
      node->leaves.push_back(std::move(leaf));
    }
  }
}

RouteTable::~RouteTable() = default;

const RouteTable& RouteTable::get() {
  static const RouteTable table(Contract::get());
  return table;
}

// One search in the tree: depth first, the more special child first.
struct RouteTable::Search {
  std::string_view verb;
  std::string_view custom;
  std::vector<std::string_view> segments;
  std::vector<std::string_view> captured;
  const Node::Leaf* found = nullptr;
  std::set<std::string, std::less<>> allowed;

  bool take(const Node& node) {
    for (const Node::Leaf& leaf : node.leaves) {
      if (leaf.custom != custom) continue;
      if (leaf.binding->verb == verb) {
        found = &leaf;
        return true;
      }
      allowed.insert(leaf.binding->verb);
    }
    return false;
  }

  bool walk(const Node& node, size_t at) {
    if (at == segments.size()) return take(node);
    const std::string_view segment = segments[at];
    if (const auto literal = node.literals.find(segment);
        literal != node.literals.end() && walk(*literal->second, at + 1)) {
      return true;
    }
    if (node.variable && !segment.empty()) {
      captured.push_back(segment);
      if (walk(*node.variable, at + 1)) return true;
      captured.pop_back();
    }
    if (node.rest && !segment.empty()) {
      const std::string_view last = segments.back();
      captured.push_back({segment.data(), static_cast<size_t>(last.data() + last.size() - segment.data())});
      if (take(*node.rest)) return true;
      captured.pop_back();
    }
    return false;
  }
};

RouteMatch RouteTable::match(std::string_view verb, std::string_view path) const {
  RouteMatch match;
  Search search;
  search.verb = verb == "HEAD" ? "GET" : verb;
  if (!path.starts_with('/')) return match;
  for (size_t at = 1; at <= path.size();) {
    size_t end = path.find('/', at);
    if (end == std::string_view::npos) end = path.size();
    search.segments.push_back(path.substr(at, end - at));
    at = end + 1;
    if (search.segments.size() > kSegmentsMax) return match;
  }
  bool found = false;
  if (const std::string_view last = search.segments.back(); last.rfind(':') != std::string_view::npos) {
    const size_t colon = last.rfind(':');
    search.custom = last.substr(colon + 1);
    search.segments.back() = last.substr(0, colon);
    found = !search.custom.empty() && search.walk(*root_, 0);
    if (!found) {
      search.segments.back() = last;
      search.custom = {};
      search.captured.clear();
    }
  }
  if (!found && !search.walk(*root_, 0)) {
    if (search.allowed.empty()) return match;
    match.outcome = RouteMatch::Outcome::kMethodNotAllowed;
    for (const std::string& allowed : search.allowed)
      match.allow.append(match.allow.empty() ? "" : ", ").append(allowed);
    return match;
  }
  match.binding = search.found->binding;
  match.outcome = RouteMatch::Outcome::kFound;
  for (size_t i = 0; i < search.captured.size(); ++i) {
    Result<std::string> value = percent_decode(search.captured[i]);
    if (!value) {
      match.outcome = RouteMatch::Outcome::kBadPath;
      return match;
    }
    match.variables.push_back({&search.found->variables[i], std::move(*value)});
  }
  return match;
}

}  // namespace uccp::call
