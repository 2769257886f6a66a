#include "storage/rocksdb/rocks_status.h"

#include <rocksdb/convenience.h>

#include <algorithm>

namespace uccp::storage {

Status to_status(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return {};
  const std::string message = what + ": " + status.ToString();
  if (status.IsNoSpace()) {
    return Status(Code::kExhausted, "NO_SPACE", message + ". Free disk space and restart the node");
  }
  if (status.IsCorruption()) {
    return Status(Code::kCorruption, "KV_DAMAGED",
                  message + ". Clear this node's state and let it be sent a snapshot, or restore a backup");
  }
  if (status.IsIOError() || status.IsBusy() || status.IsTimedOut() || status.IsTryAgain()) {
    return Status(Code::kUnavailable, "IO_ERROR", message);
  }
  return Status(Code::kInternal, "KV_FAILED", message);
}

rocksdb::CompressionType best_compression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  for (const auto type : {rocksdb::kLZ4Compression, rocksdb::kSnappyCompression}) {
    if (std::ranges::find(supported, type) != supported.end()) return type;
  }
  return rocksdb::kNoCompression;
}

}  // namespace uccp::storage
