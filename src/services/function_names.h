// Names that agents and services of functions share.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace uccp::functions {

// Store of objects that are values of tasks; the key is the task's id.
inline constexpr std::string_view kTaskValueStore = "tasks";
// Label of workers that run functions; its value is the runtime.
inline constexpr std::string_view kRuntimeLabel = "uccp/functions";
inline constexpr std::string_view kRuntimeDefault = "python3.11";
// Inputs of an attempt: the bundle, and arguments that are blobs, by their position or name.
inline constexpr std::string_view kBundleInput = "function";
inline std::string argument_input(size_t position) { return "args/" + std::to_string(position); }
inline std::string argument_input(std::string_view name) { return "kwargs/" + std::string(name); }
// Path of the artifact that a large value is.
inline constexpr std::string_view kValueArtifact = ".value";
// Path of the artifact that holds what a generator yielded: a log (services/tasks/log_format.h) whose standard output
// is for each value u32 big endian length and a serialized v1.Payload.
inline constexpr std::string_view kYieldedArtifact = ".values";
// A value up to this size travels and is kept inside the outcome.
inline constexpr size_t kInlineValueBytes = 16u << 10;

}  // namespace uccp::functions
