// The OpenAPI document of the REST door, generated from the contract. docs/rest.md describes what it promises.
//
// It lists every REST route of the contract, built or not, and the few paths that the door has by itself. The same
// contract gives the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "call/contract.h"
#include "call/contract_docs.h"

namespace uccp::call {

// 3.1, and 3.0 for tools that know nothing later. Beside `mutualTLS`, which 3.0 lacks, both say the same.
enum class OpenApiLevel : uint8_t { k31, k30 };

struct OpenApiOptions {
  OpenApiLevel level = OpenApiLevel::k31;
  std::string version = "1.0.0";
  // Whether this node has a handler for the method; one without is marked `x-uccp-unbuilt` and declares 501. Empty: all
  // methods are built.
  std::function<bool(const Method&)> is_built;
};

std::string openapi_json(const Contract& contract, const ContractDocs& docs, const OpenApiOptions& options);

}  // namespace uccp::call
