#include "services/compute/compute_state.h"

#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/stable_bytes.h"
#include "services/compute/object_state.h"
#include "services/message_types.h"

namespace uccp::compute {
namespace {

using internal::v1::FunctionRow;
using machine::ApplyContext;
using machine::ApplyResult;
using machine::Scope;
using services::parse;
using services::set_wall;

constexpr std::string_view kCount = "versions";

uint64_t count_of(const machine::KeyReader& state, const Scope& scope) {
  const auto stored = functions::kVersionCounts.get(state, scope, kCount);
  return stored ? ByteReader(*stored).u64() : 0;
}

void set_count(ApplyContext& c, uint64_t count) {
  functions::kVersionCounts.put(c.state(), c.scope(), kCount, ByteWriter().u64(count).take());
}

// The versions of a name that are stored now.
std::vector<FunctionRow> versions_of(const machine::KeyReader& state, const Scope& scope, std::string_view name) {
  std::vector<FunctionRow> rows;
  functions::kVersions.scan(state, scope, ByteWriter().key_part(name).take(), "",
                            [&](std::string_view, FunctionRow row) {
                              rows.push_back(std::move(row));
                              return true;
                            });
  return rows;
}

Status not_found(const std::string& name, const std::string& version) {
  const std::string what = version.empty() ? "function " + name : "version " + version + " of function " + name;
  return Status(Code::kNotFound, "FUNCTION_NOT_FOUND", "there is no " + what + " in this namespace; register it first")
      .with_resource("function", name);
}

ApplyResult register_function(ApplyContext& c, std::string_view payload) {
  auto command = parse<internal::v1::RegisterFunctionCommand>(payload);
  FunctionRow& row = *command.mutable_row();
  v1::Function& function = *row.mutable_function();
  const std::string key = version_key(function.name(), function.version());
  if (const auto stored = functions::kVersions.get(c.state(), c.scope(), key)) {
    if (stored->bundle().sha256() == row.bundle().sha256()) return machine::stable_bytes(stored->function());
    return fail(Status(Code::kAlreadyExists, "FUNCTION_VERSION_EXISTS",
                       "version " + function.version() + " of function " + function.name() +
                           " has other content, and a version never changes; choose another one, or none")
                    .with_resource("function", function.name()));
  }
  const uint64_t count = count_of(c.state(), c.scope());
  if (count >= command.versions_max()) {
    return fail(Status(Code::kExhausted, "FUNCTIONS_EXHAUSTED",
                       "the namespace has " + std::to_string(count) +
                           " versions of functions, as many as it may have (function_versions_max); delete some"));
  }
  set_count(c, count + 1);
  set_wall(function.mutable_create_time(), c.envelope().wall);
  set_wall(function.mutable_update_time(), c.envelope().wall);
  function.set_etag(std::to_string(c.index().value));
  row.set_order(c.index().value);
  functions::kVersions.put(c.state(), c.scope(), key, row);
  functions::kNewest.put(c.state(), c.scope(), function.name(), function.version());
  return machine::stable_bytes(function);
}

ApplyResult remove_function(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::RemoveFunctionCommand>(payload);
  const FunctionRow* newest = nullptr;
  uint64_t removed = 0;
  const std::vector<FunctionRow> rows = versions_of(c.state(), c.scope(), command.name());
  for (const FunctionRow& row : rows) {
    if (command.version().empty() || command.version() == row.function().version()) {
      functions::kVersions.erase(c.state(), c.scope(), version_key(command.name(), row.function().version()));
      removed += 1;
    } else if (newest == nullptr || row.order() > newest->order()) {
      newest = &row;
    }
  }
  if (removed == 0) return fail(not_found(command.name(), command.version()));
  set_count(c, count_of(c.state(), c.scope()) - removed);
  if (newest == nullptr) functions::kNewest.erase(c.state(), c.scope(), command.name());
  else functions::kNewest.put(c.state(), c.scope(), command.name(), newest->function().version());
  return std::string();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> ComputeState::commands() {
  auto commands = object_commands();
  commands.insert({{"register", register_function}, {"remove", remove_function}});
  return commands;
}

std::string version_key(std::string_view name, std::string_view version) {
  return ByteWriter().key_part(name).raw(version).take();
}

Result<FunctionRow> find_function(const machine::KeyReader& state, const Scope& scope, const std::string& name,
                                  const std::string& version) {
  std::string wanted = version;
  if (wanted.empty()) wanted = functions::kNewest.get(state, scope, name).value_or("");
  if (!wanted.empty()) {
    if (auto row = functions::kVersions.get(state, scope, version_key(name, wanted))) return std::move(*row);
  }
  return fail(not_found(name, version));
}

}  // namespace uccp::compute
