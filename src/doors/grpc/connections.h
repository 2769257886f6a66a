// How many clients are connected to a port, which gRPC does not tell.
#pragma once

#include <cstddef>
#include <cstdint>

namespace uccp::doors {

// Established TCP connections of this network namespace whose local port is `port`, from /proc/net/tcp and tcp6.
size_t count_connections(uint16_t port);

}  // namespace uccp::doors
