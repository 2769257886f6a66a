// The files of the contract, linked into every program that uses it.
#pragma once

#include <span>
#include <string_view>

namespace uccp::call {

// Paths of all files of uccp/v1, in the order of the documents. Refers to each, so that the linker keeps them: a file
// of a static library that nobody refers to is missing in the descriptor pool.
std::span<const std::string_view> linked_files();

}  // namespace uccp::call
