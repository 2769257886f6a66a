// Transport: the way of the command line to the cluster. The real one speaks gRPC; tests have a scripted one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace uccp::cli {

struct CallOptions {
  int64_t timeout_ms = 0;  // 0: none
  std::vector<std::pair<std::string, std::string>> metadata;
};

class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  // The next message; nullopt at the orderly end. Blocks.
  virtual Result<std::optional<std::string>> read() = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // `path` is Method::grpc_path. Both block.
  virtual Result<std::string> unary(const std::string& path, const std::string& request,
                                    const CallOptions& options) = 0;
  virtual Result<std::unique_ptr<ResponseStream>> open_stream(const std::string& path, const std::string& request,
                                                              const CallOptions& options) = 0;
  // Moves on to the next node of the context, after the present one did not answer.
  virtual void next_node() = 0;
  // Nodes that next_node() goes round.
  virtual size_t node_count() const = 0;
};

// What `auth login` left behind.
struct StoredSession {
  std::string server, ca_pem, principal, tenant, access_token, refresh_token;
  int64_t expire_us = 0;  // of the access token
};

// Where the cluster is and who calls it.
struct Context {
  std::vector<std::string> targets;  // "host:port", tried in turn
  std::string ca_pem;
  std::string cert_pem;
  std::string key_pem;
  std::string token;
  bool plaintext = false;                // no TLS: only for servers that are not ours
  std::string name_space;                // where commands work that name none; empty: the credential's
  std::string source;                    // for messages: the file or flag it came from
  std::optional<StoredSession> session;  // the token is that of this session
};

using Connect = std::function<Result<std::unique_ptr<Transport>>(const Context& context)>;

}  // namespace uccp::cli
