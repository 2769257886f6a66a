// Where the cluster is and with which keys to go there.
//
// From flags, or from the context file that `uccp dev` writes: JSON with `grpc` ("host:port"), `nodes` (addresses or
// objects with `grpc`), `ca`, and for the agent `agentCert` and `agentKey`; keys are PEM or paths, relative to the
// file. Without those two the agent's keys are agent.crt and agent.key beside `ca`, and if there are none, `cert` and
// `key`. The file is read again at each connection, since ports change when a development server is restarted. Callable
// from any thread; blocks on disk.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace uccp::agent {

struct ServerAddressOptions {
  std::string context_file;
  std::string server;  // host:port, wins over the file; several separated by commas
  std::string ca_file, cert_file, key_file;
};

// What a context file says; what it does not name is empty.
struct ServerContext {
  std::vector<std::string> targets;  // each once
  std::string ca, agent_cert, agent_key, cert, key;
};
// `text` is JSON. Errors: invalid CONTEXT_INVALID.
Result<ServerContext> parse_context(const std::string& text);

struct ServerAddress {
  std::vector<std::string> targets;
  std::string ca_pem, cert_pem, key_pem;
};

// Errors: failed_precondition CONTEXT_UNAVAILABLE, invalid CONTEXT_INVALID, with what to do.
Result<ServerAddress> find_server(const ServerAddressOptions& options);

}  // namespace uccp::agent
