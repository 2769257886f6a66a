// Manifests: files that say what is wanted, and what it takes to get there.
//
// A document has resources by kind, `role: {name: dev, permissions: [...]}` or a list of them. Only the fields that are
// written count; what a file does not name is left as it is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "call/wire.h"
#include "cli/kinds.h"
#include "cli/session.h"

namespace uccp::cli {

struct Wanted {
  const Kind* kind = nullptr;
  const call::MessagePlan* plan = nullptr;  // of `wire`: the resource, or the request that takes its fields
  std::string wire;
  std::vector<std::string> fields;  // paths of the leaves that are written: "schema.type"
  std::string name;                 // empty: the server chooses it
  std::string where;                // "roles.yaml line 3"

  std::string label() const;  // "role/dev"
};

// Reads files (`-`: standard input). Errors: what reading and parsing answer; invalid MANIFEST_INVALID for a kind that
// cannot be declared or a resource without its name.
Result<std::vector<Wanted>> read_manifests(Session& session, const Kinds& kinds, const std::vector<std::string>& files);

// What is there of it, as bytes of `wanted.plan`: by its name, else the one among all whose fields are as wanted.
struct Found {
  std::string wire;
  std::string id;
  std::string etag;
};
Result<std::optional<Found>> find_current(Session& session, const Wanted& wanted);

// `current` with the written fields as wanted, without what only the server sets. Equal to settable() of `current` if
// there is nothing to do.
Result<std::string> merged(const Wanted& wanted, const std::string& current);
Result<std::string> settable(const Wanted& wanted, const std::string& current);

// The request of a method that takes the name of the resource as its argument.
Result<std::string> named_request(Session& session, const Wanted& wanted, const call::Method& method,
                                  const std::string& name);

// Documents for `apply` that declare resources as they are: what `-o manifest` prints. Errors: invalid USAGE for a kind
// that cannot be declared.
Result<std::string> manifest_of(const Kind& kind, const std::vector<std::string>& resources);

// The request that brings `current` (null: nothing is there) to what is wanted, and the command it belongs to.
struct Step {
  const Command* command = nullptr;
  std::string request;
  std::string outcome;  // "created", "updated"
};
// Errors: failed_precondition NOT_CHANGEABLE if the kind can only be made and removed.
Result<Step> step_to(Session& session, const Wanted& wanted, const Found* current);

}  // namespace uccp::cli
