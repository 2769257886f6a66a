// Kind: what can be done to the resources of one noun, derived from the commands of the contract and their REST routes:
// POST of a resource makes it, PATCH of one changes named fields, PUT replaces it, DELETE of its path removes it, GET
// of its path answers it. Nothing here names a resource; a new one in the contract is a new kind.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/catalog.h"

namespace uccp::cli {

struct Kind {
  std::string noun;
  const call::MessagePlan* resource = nullptr;  // what `get` answers, else the items of `list`
  const Command* get = nullptr;
  const Command* list = nullptr;
  const Command* create = nullptr;
  const Command* patch = nullptr;
  const Command* put = nullptr;  // makes or replaces the whole
  const Command* remove = nullptr;
  const Command* watch = nullptr;
  const Command* logs = nullptr;
  // Reads that take nothing but the name, beside `get`: what else is known of one.
  std::vector<const Command*> facets;

  // Field of the resource by which it is found; null if the server chooses its name.
  const call::FieldPlan* key = nullptr;

  // It has a state that can be asked for: making one again with the same content changes nothing. A task has none: it
  // is something that happens.
  bool is_declarative() const { return create != nullptr || put != nullptr; }
};

class Kinds {
 public:
  explicit Kinds(const Catalog& catalog);
  // Errors: invalid USAGE with a suggestion.
  Result<const Kind*> find(std::string_view word) const;
  std::span<const Kind> all() const { return kinds_; }
  const Catalog& catalog() const { return catalog_; }

 private:
  const Catalog& catalog_;
  std::vector<Kind> kinds_;
};

// The field of the request that holds the resource; null: the request itself is the resource (PUT of `body: "*"`).
const call::FieldPlan* resource_field(const call::Method& method);

}  // namespace uccp::cli
