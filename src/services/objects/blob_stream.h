// Sends a blob as a stream of items, no faster than the client takes them. Used for blobs of agents, artifacts and
// objects.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/executor.h"
#include "call/call.h"
#include "services/objects/blob_store.h"

namespace uccp::objects {

struct BlobStream {
  call::CallPtr call;
  std::string sha256;
  uint64_t offset = 0;
  uint64_t size = 0;
  // Makes the serialized item of a piece; `data` empty: the explicit last item.
  std::function<std::string(uint64_t offset, std::string data)> item;
};

// Reads on `io`. Ends the call when the blob ends, a read fails or the client goes away.
void stream_blob(Executor& io, BlobStore& blobs, BlobStream stream);

}  // namespace uccp::objects
