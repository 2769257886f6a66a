#include "server/node_names.h"

#include <algorithm>
#include <charconv>

#include "runtime/pki.h"
#include "services/cluster/cluster_state.h"

namespace uccp::server {
namespace {

// Of names, and of addresses of both kinds with their zones. What else there may be is never that of a host, and would
// end a field of a log line or of a certificate.
bool is_host(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_' || c == ':' || c == '%';
  });
}

}  // namespace

Result<runtime::PeerAddress> parse_address(std::string_view text) {
  const auto malformed = [&](std::string_view why) {
    return fail(Code::kInvalid, "CONFIG_INVALID",
                "'" + std::string(text) + "' is not HOST:PORT or [ADDRESS]:PORT: " + std::string(why));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return malformed("there is no port");
  const std::string_view digits = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0)
    return malformed("a port is a number from 1 to 65535");
  std::string_view host = text.substr(0, colon);
  const bool in_brackets = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (in_brackets) host = host.substr(1, host.size() - 2);
  if (!is_host(host)) return malformed("a host has a name or an address");
  if (!in_brackets && host.find(':') != std::string_view::npos)
    return malformed("an address of IPv6 stands in brackets, as in [::1]:50000");
  return runtime::PeerAddress{std::string(host), port};
}

Result<std::map<NodeId, runtime::PeerAddress>> parse_members(std::string_view text) {
  std::map<NodeId, runtime::PeerAddress> members;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(text.size(), comma + 1));
    const size_t equals = item.find('=');
    const NodeId node = equals == std::string_view::npos ? NodeId() : cluster::parse_node_name(item.substr(0, equals));
    if (!node) return fail(Code::kInvalid, "CONFIG_INVALID", "'" + std::string(item) + "' is not n1=HOST:PORT");
    UCCP_TRY(auto address, parse_address(item.substr(equals + 1)));
    if (!members.emplace(node, std::move(address)).second) {
      return fail(Code::kInvalid, "CONFIG_INVALID", "initial_members names n" + std::to_string(node.value) + " twice");
    }
  }
  return members;
}

bool parse_node_uri(std::string_view uri, std::string& cluster_id, NodeId& node) {
  constexpr std::string_view kMiddle = "/node/";
  const std::string empty = runtime::node_uri("", NodeId());
  const std::string_view prefix = std::string_view(empty).substr(0, empty.find(kMiddle));
  const size_t middle = uri.rfind(kMiddle);
  if (!uri.starts_with(prefix) || middle == std::string_view::npos || middle < prefix.size()) return false;
  const std::string_view cluster = uri.substr(prefix.size(), middle - prefix.size());
  const std::string_view digits = uri.substr(middle + kMiddle.size());
  NodeId number;
  (void)std::from_chars(digits.data(), digits.data() + digits.size(), number.value);
  // One node has one URI: peers are compared by it.
  if (!number || cluster.empty() || runtime::node_uri(cluster, number) != uri) return false;
  cluster_id = cluster;
  node = number;
  return true;
}

}  // namespace uccp::server
