// The descriptor image of the contract as bytes of the program: the comments for the OpenAPI document.
#pragma once

#include <string_view>

namespace uccp::doors {

std::string_view contract_image();

}  // namespace uccp::doors
