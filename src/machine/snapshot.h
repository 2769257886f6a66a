// The state of one group at one position as a stream of chunks, and its installation into the spare slot of the state.
//
// Chunks are numbered from 0; the first begins with the header, the last ends with the number of rows and the digest.
// The stream is a function of the state and the options. docs/formats/snapshot.md is the format.
// A reader or writer belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "machine/machine.h"
#include "storage/compression.h"
#include "storage/kv.h"

namespace uccp::machine {

inline constexpr size_t kSnapshotChunkBytes = 256u << 10;

struct SnapshotOptions {
  size_t chunk_bytes = kSnapshotChunkBytes;  // of rows, before they are packed
  storage::CompressionOptions compression;
  Counter* saved_bytes = nullptr;
};

class SnapshotReader {
 public:
  // `view` is the state that `header` describes. Its Kv must outlive the reader.
  SnapshotReader(SnapshotHeader header, GroupView view, const SnapshotOptions& options = {})
      : header_(std::move(header)),
        view_(std::move(view)),
        chunk_bytes_(options.chunk_bytes),
        packer_(options.compression, options.saved_bytes) {}

  // The next chunk: one row at least, then rows until it has the chunk size. Requires !done().
  std::string next();
  bool done() const { return done_; }
  const SnapshotHeader& header() const { return header_; }

 private:
  const SnapshotHeader header_;
  const GroupView view_;
  const size_t chunk_bytes_;
  storage::Packer packer_;
  std::string from_;  // the next row's key, or before it
  uint64_t number_ = 0;
  uint64_t rows_ = 0;
  Digest digest_;
  bool done_ = false;
};

// Takes chunks apart, in their order, and checks all of it.
class SnapshotCheck {
 public:
  explicit SnapshotCheck(GroupId group) : group_(group) {}

  using Row = std::function<void(std::string_view key, std::string_view value)>;
  // Takes chunk next() and calls `row` with its rows; they count only if this answers OK. Errors: corruption
  // SNAPSHOT_DAMAGED for a chunk that is not what a reader wrote, or when rows and digest do not fit together at the
  // end; unimplemented FEATURE_LEVEL. It is then of no more use.
  Status add(std::string_view chunk, const Row& row = {});
  uint64_t next() const { return number_; }
  bool complete() const { return complete_; }
  // Requires next() > 0.
  const SnapshotHeader& header() const { return *header_; }

 private:
  Status add_body(std::string_view body, bool first, bool last, const Row& row);

  const GroupId group_;
  std::optional<SnapshotHeader> header_;
  uint64_t number_ = 0;
  uint64_t rows_ = 0;
  Digest digest_;
  bool complete_ = false;
};

class SnapshotWriter {
 public:
  // Writes into `slot` of the group, which must not be in use; the first chunk erases what is there.
  SnapshotWriter(GroupId group, storage::Kv& kv, StateSlot slot) : check_(group), group_(group), kv_(kv), slot_(slot) {}

  // Takes chunk next(). Errors: as SnapshotCheck::add(); what the Kv says. The writer is then of no more use, and what
  // it wrote has to be erased (Machine::open() does).
  Status add(std::string_view chunk);
  uint64_t next() const { return check_.next(); }
  bool complete() const { return check_.complete(); }
  // Requires next() > 0.
  const SnapshotHeader& header() const { return check_.header(); }

 private:
  SnapshotCheck check_;
  const GroupId group_;
  storage::Kv& kv_;
  const StateSlot slot_;
};

// The number of a chunk, without looking at the rest; none if it is too short.
std::optional<uint64_t> snapshot_chunk_number(std::string_view chunk);

}  // namespace uccp::machine
