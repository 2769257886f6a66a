// What the calls of functions and objects need, and do alike. Any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/executor.h"
#include "base/random.h"
#include "call/handler.h"
#include "call/listing.h"
#include "machine/ports.h"
#include "services/objects/blob_store.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::compute {

struct ComputeEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  objects::BlobStore& blobs;
  Executor& blob_io;                   // stores code and arguments
  std::function<bool()> disk_is_full;  // nothing is to be stored now
  const Clock& clock;
  Random& random;  // used under a lock of the service
  const call::PageTokenSigner& page_tokens;
  std::function<uint32_t()> feature_level;
  // Whether the caller may read an object: an argument hands it to whoever calls.
  std::function<Status(const call::Call&, const v1::GetObjectRequest&)> may_read_object;
};

machine::Scope scope_of(const call::Call& call);
void put_session(const call::CallPtr& call, LogIndex index);

// Proposes a command to the group of tasks and answers what came of it, or `answer`.
void propose_command(const ComputeEnvironment& env, const call::CallPtr& call, std::string_view request,
                     std::string_view command, const std::string& payload, std::optional<std::string> answer = {});

// Answers a page of the rows that `scan` visits, read at the call's level. What `scan` answers is the error of the
// call.
using ScanView =
    std::function<Status(const machine::GroupView& view, std::string_view after, const call::VisitRow& visit)>;
// `key`: the field by which the rows are in order.
void list_rows(const ComputeEnvironment& env, const call::CallPtr& call, std::string_view request, std::string_view key,
               ScanView scan);

}  // namespace uccp::compute
