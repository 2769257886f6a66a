// `uccp dev`: one node with everything embedded, its own authority, one agent.
//
// The data directory holds all of it:
//   dev.json     where the node is and how to reach it; there only while it serves
//   agent.json   the same for the agent, which outlives the server and looks here when it reconnects
//   pki/ log/ state/ blobs/ agent/
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "base/file_system.h"
#include "runtime/dev_pki.h"
#include "server/config.h"
#include "server/server.h"

namespace uccp::server {

struct DevOptions {
  std::string data_dir;
  bool auto_ports = false;
  bool start_agent = true;
};

// Runs until SIGINT or SIGTERM. Answers the exit code of the process. Requires: no other thread runs yet.
int run_dev(const DevOptions& options, const Config& config);
// The same for a configured node: no agent of its own, ports and certificates from the configuration.
int run_configured(const Config& config);

}  // namespace uccp::server
