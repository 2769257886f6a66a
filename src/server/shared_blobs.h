// The blobs of a cluster: what one node has, all nodes can read.
//
// A blob that an agent or a service stores is copied to the other nodes; storing it is answered when a majority of the
// members has it, or when the others could not be reached in time. A blob that is missing here is fetched from whoever
// has it. Content is named by its digest, so copies cannot differ. Thread: callable from any thread. stat(), read() and
// verify() block on the network when the blob is missing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "call/handler.h"
#include "server/peer_links.h"
#include "services/objects/blob_store.h"

namespace uccp::server {

class SharedBlobs final : public objects::BlobStore {
 public:
  // `io` reads blobs that are copied. Everything must outlive the store.
  SharedBlobs(objects::BlobStore& local, PeerLinks& links, NodeId self, Executor& io)
      : local_(local), links_(links), self_(self), io_(io) {}

  // A handler for AgentLink/PutBlob that stores with `local` and answers when there are copies.
  call::Handler copying(call::Handler local);
  // A handler for AgentLink/GetBlob that fetches what is missing before it runs `local`.
  call::Handler fetching(call::Handler local);

  Result<std::unique_ptr<objects::BlobWriter>> begin_put() override;
  Result<objects::BlobInfo> stat(std::string_view sha256) override;
  Result<std::string> read(std::string_view sha256, uint64_t offset, size_t size) override;
  Result<bool> exists(std::string_view sha256) override { return local_.exists(sha256); }
  Status remove(std::string_view sha256) override { return local_.remove(sha256); }
  Result<std::vector<std::string>> list(std::string_view after, size_t count_max) override {
    return local_.list(after, count_max);
  }
  Status verify(std::string_view sha256) override;

 private:
  class Writer;
  class Push;
  class Pull;

  std::vector<NodeId> others() const;
  // Copies a blob that is here to the other nodes; `done` when a majority has it or the time is over. Any thread.
  void copy(const objects::BlobInfo& blob, std::function<void()> done);
  // Fetches a blob that is not here. Blocks. Errors: not_found BLOB_NOT_FOUND.
  Status fetch(std::string_view sha256);

  objects::BlobStore& local_;
  PeerLinks& links_;
  const NodeId self_;
  Executor& io_;
};

}  // namespace uccp::server
