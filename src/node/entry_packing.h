// The data of entries in compressed form: packed once, by the leader, then sent, written and received as it is.
//
// Only groups at feature level kPackedEntriesLevel send it; what arrives is unpacked before the core sees it, because
// applying needs the data. Loop thread only.
#pragma once

#include <memory>
#include <string_view>

#include "base/metrics.h"
#include "raft/message.h"
#include "storage/compression.h"

namespace uccp::node {

class EntryPacking {
 public:
  EntryPacking(storage::CompressionOptions options, MetricsRegistry& metrics);

  // As Entry::packed says.
  std::shared_ptr<const PackedData> pack(std::string_view data);
  // Counts what the packed entries of a message that is sent save.
  void count_sent(const raft::Message& message);

 private:
  storage::Packer packer_;
  const std::shared_ptr<const PackedData> stays_ = std::make_shared<const PackedData>();
  Counter& saved_bytes_;
};

// Fills in the data of entries that came packed. Errors: invalid ENTRY_PACKED_INVALID for bytes that nobody packed, or
// that are larger than a command may be.
Status unpack_entries(raft::Message& message);

}  // namespace uccp::node
