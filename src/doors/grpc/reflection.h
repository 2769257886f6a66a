// Server reflection, answered from the linked descriptors. gRPC's own plugin sees only registered services; ours are
// behind one generic handler. https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
#pragma once

#include <string>
#include <string_view>

namespace uccp::doors {

// Answers one serialized ServerReflectionRequest with a ServerReflectionResponse; v1 and v1alpha have the same form.
// Callable from any thread.
std::string reflect(std::string_view request);

}  // namespace uccp::doors
