// What an unprivileged process needs to be the parent of a container: a user namespace in which it is root, and mounts
// of its own.
#pragma once

#include <string>

#include "base/status.h"

namespace uccp::containers {

// Takes the calling process, which has one thread, into a user and a mount namespace of its own; it is root there, and
// who it was outside. It still dies with its parent if it did. Errors: failed_precondition NAMESPACE_REFUSED, which
// says what the kernel does not allow.
Status enter_namespaces();

// Mounts at `at` the directory `lower` with what is written going to `upper`. Errors: failed_precondition
// OVERLAY_REFUSED.
Status mount_overlay(const std::string& lower, const std::string& upper, const std::string& work,
                     const std::string& at);

// Whether this machine lets the calling user run containers: tries it, in the namespaces of the calling process, and
// `runc --version`. Errors as above; not_found RUNC_NOT_FOUND.
Status probe(const std::string& runc);

}  // namespace uccp::containers
