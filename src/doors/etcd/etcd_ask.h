// What all rpcs of the etcd door share: who this member is, and how they call the contract.
//
// Every request becomes calls of the contract with the credentials of the rpc, which pass the pipeline as all others
// do.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/executor.h"
#include "call/pipeline/pipeline.h"
#include "etcd.pb.h"

namespace uccp::doors {

struct EtcdContext {
  call::Pipeline& pipeline;
  Executor& timers;
  uint64_t cluster_id = 0;
  uint64_t member_id = 0;
  std::string host;                // of this door, for clients that ask for members
  std::function<uint64_t()> term;  // of the group that holds the keys; callable from any thread
  std::atomic<uint16_t> port = 0;  // known when the door is open

  // The header of an answer at a revision.
  void stamp(etcd::ResponseHeader& header, int64_t revision) const {
    header.set_cluster_id(cluster_id);
    header.set_member_id(member_id);
    header.set_revision(revision);
    header.set_raft_term(term());
  }
};
using EtcdContextPtr = std::shared_ptr<const EtcdContext>;

// Reads that etcd calls serializable are answered by this node from what it has, as long as it is not cut off for long.
inline constexpr std::string_view kEtcdSerializable = "bounded:600000";

// A call of the contract for the rpc `outer`, not dispatched yet: its method, credentials, deadline and ids.
call::CallPtr inner_call(const call::CallPtr& outer, std::string_view method);

struct AskOptions {
  std::string_view method;  // "uccp.v1.KeyValue/Put"
  std::string_view consistency = {};
  // What the call does has to be known, or done, even if the client has gone away: it is not cancelled with `outer`.
  bool outlives = false;
};
// Makes a unary call. `done` comes once, on any thread, perhaps before this returns; not when `outer` has ended before,
// unless the call outlives it. When the client goes away the call is cancelled.
using Answered = std::move_only_function<void(Result<std::string>)>;
void ask(const EtcdContext& context, const call::CallPtr& outer, const AskOptions& options, std::string request,
         Answered done);

// The same with messages. Ends `outer` when the call fails.
template <typename Response, typename Request, typename Done>
void ask_for(const EtcdContext& context, const call::CallPtr& outer, const AskOptions& options, const Request& request,
             Done done) {
  ask(context, outer, options, request.SerializeAsString(),
      [outer, done = std::move(done)](Result<std::string> bytes) mutable {
        if (!bytes) return outer->finish(std::move(bytes.error()));
        Response response;
        if (!response.ParseFromString(*bytes)) {
          return outer->finish(Status(Code::kInternal, "WIRE_INVALID", "an answer of the contract cannot be parsed"));
        }
        done(std::move(response));
      });
}

}  // namespace uccp::doors
