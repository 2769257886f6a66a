// bbolt files (the store of etcd, version 2 of the format), as far as snapshots need them: written at once from sorted
// pairs, read as a whole. Pure: bytes in, bytes out.
//
// A file is pages: two meta pages, a free list, and a B+ tree of buckets, each of which is a tree of pairs or, if
// small, lies inside its entry. The reader takes any bytes: what does not fit together is an error, never a read
// outside.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::storage {

inline constexpr size_t kBoltPageBytes = 4096;

// Name of a bucket to its pairs; keys in the order of their bytes. std::map, because the format wants that order.
using BoltBucket = std::map<std::string, std::string>;
using BoltBuckets = std::map<std::string, BoltBucket>;

std::string write_bolt(const BoltBuckets& buckets);

// Visits the pairs of a bucket in order until `visit` returns false. A bucket that is not there has no pairs.
// Errors: corruption BOLT_INVALID.
using VisitBolt = std::function<bool(std::string_view key, std::string_view value)>;
Status read_bolt(std::string_view file, std::string_view bucket, const VisitBolt& visit);

}  // namespace uccp::storage
