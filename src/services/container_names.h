// Names that agents and services of containers share.
#pragma once

#include <string_view>

namespace uccp::containers {

// Label of workers that run containers; its value is the kind of images.
inline constexpr std::string_view kLabel = "uccp/containers";
inline constexpr std::string_view kOci = "oci";

}  // namespace uccp::containers
