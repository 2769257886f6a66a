// How configuration and certificates name nodes and their places. Pure; callable from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/status.h"
#include "runtime/peer_network.h"

namespace uccp::server {

// "host:port", "[::1]:port". Errors: invalid CONFIG_INVALID.
Result<runtime::PeerAddress> parse_address(std::string_view text);
// "n1=host:port,n2=host:port". Errors: as parse_address; a node that is named twice.
Result<std::map<NodeId, runtime::PeerAddress>> parse_members(std::string_view text);
// Reads what runtime::node_uri() writes. False if the URI is none; then nothing is changed.
bool parse_node_uri(std::string_view uri, std::string& cluster_id, NodeId& node);

}  // namespace uccp::server
