// Places and names of nodes from arbitrary text: what is taken can be written, and is the same when it is read again.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "runtime/pki.h"
#include "server/node_names.h"

namespace {

std::string text_of(const uccp::runtime::PeerAddress& address) {
  const bool brackets = address.host.find(':') != std::string::npos;
  return (brackets ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto address = server::parse_address(text)) {
    UCCP_CHECK(!address->host.empty() && address->port != 0, "a place has a host and a port");
    const auto again = server::parse_address(text_of(*address));
    UCCP_CHECK(again && *again == *address, "a place that was read can be written");
  } else {
    UCCP_CHECK(address.error().reason() == "CONFIG_INVALID", "every refusal has one reason");
  }
  if (const auto members = server::parse_members(text)) {
    std::string written;
    for (const auto& [node, address] : *members)
      written += (written.empty() ? "n" : ",n") + std::to_string(node.value) + "=" + text_of(address);
    const auto again = server::parse_members(written);
    UCCP_CHECK(again && *again == *members && !members->contains(NodeId()), "members that were read can be written");
  } else {
    UCCP_CHECK(members.error().reason() == "CONFIG_INVALID", "every refusal has one reason");
  }
  std::string cluster;
  NodeId node;
  if (server::parse_node_uri(text, cluster, node)) {
    UCCP_CHECK(runtime::node_uri(cluster, node) == text, "a node has one URI");
  } else {
    UCCP_CHECK(cluster.empty() && !node, "what is no URI of a node says nothing");
  }
  return 0;
}
