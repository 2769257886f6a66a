// The blob calls of the link, each an object that lives until its call is done. Internal to grpc_link.
//
// Thread: gRPC's callback threads; `done` is called there, once.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "agent/link.h"

namespace uccp::agent {

// `done` is called with the answer's bytes.
void start_unary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, std::string request,
                 int64_t timeout_ms, std::function<void(Result<std::string>)> done);
Status status_from(const grpc::Status& status);

void start_put(const std::shared_ptr<grpc::Channel>& channel, BlobSource source, const wire::AttemptId& attempt,
               ServerLink::Done done);
void start_get(const std::shared_ptr<grpc::Channel>& channel, const std::string& sha256, const wire::AttemptId& attempt,
               std::unique_ptr<objects::BlobWriter> into, ServerLink::Done done);

}  // namespace uccp::agent
