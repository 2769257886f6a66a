// What RocksDB says, in our words. Only for the sources of this folder.
#pragma once

#include <rocksdb/options.h>
#include <rocksdb/status.h>

#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::storage {

Status to_status(const rocksdb::Status& status, const std::string& what);

inline rocksdb::Slice slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline std::string_view view_of(const rocksdb::Slice& bytes) { return {bytes.data(), bytes.size()}; }

// The best that this build of RocksDB has.
rocksdb::CompressionType best_compression();

}  // namespace uccp::storage
