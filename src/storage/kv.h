// Kv: an ordered byte map with atomic batches and immutable views. The state of all groups of a node lives in one.
//
// Keys begin with the group id (8 bytes big endian), then what machine/table.h puts there. Calls of Kv belong to one
// thread at a time; views and their iterators may be used on any thread, one iterator on one thread at a time.
//
// After a crash the map is what it was after some write, none earlier than the last flush.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::storage {

// Changes that take effect together. Later changes of one key win.
class KvBatch {
 public:
  struct Change {
    std::string key;
    std::optional<std::string> value;  // none: delete
  };

  void put(std::string key, std::string value) { changes_.push_back({std::move(key), std::move(value)}); }
  void erase(std::string key) { changes_.push_back({std::move(key), std::nullopt}); }
  const std::vector<Change>& changes() const { return changes_; }
  bool empty() const { return changes_.empty(); }

 private:
  std::vector<Change> changes_;
};

// A cursor over one view, which must outlive it. Keys come in byte order. Not valid until the first seek; moving past
// either end makes it not valid, until the next seek.
class KvIterator {
 public:
  virtual ~KvIterator() = default;
  // To the first key >= `key`.
  virtual void seek(std::string_view key) = 0;
  // To the last key < `key`.
  virtual void seek_before(std::string_view key) = 0;
  // Require valid().
  virtual void next() = 0;
  virtual void previous() = 0;
  virtual bool valid() const = 0;
  // Require valid(); hold until the iterator moves.
  virtual std::string_view key() const = 0;
  virtual std::string_view value() const = 0;
  // Not ok if a read failed; the iterator is then not valid.
  virtual Status status() const = 0;
};

// The map at one moment. Immutable; usable from any thread; must not outlive its Kv.
class KvView {
 public:
  virtual ~KvView() = default;
  // nullopt: no such key. Errors: unavailable IO_ERROR, corruption.
  virtual Result<std::optional<std::string>> get(std::string_view key) const = 0;
  virtual std::unique_ptr<KvIterator> iterate() const = 0;
};

class Kv {
 public:
  virtual ~Kv() = default;
  // All changes or none, visible to views made later. Durable only after flush().
  virtual Status write(const KvBatch& batch) = 0;
  // Removes every key in [from, to); none if to <= from. Not part of a batch, but ordered with batches, and as atomic.
  virtual Status erase_range(std::string_view from, std::string_view to) = 0;
  virtual std::shared_ptr<const KvView> view() = 0;
  // Everything written before is durable after return. Blocks.
  virtual Status flush() = 0;
  // Writes a consistent and durable copy of everything written before, that another Kv of the same kind can be opened
  // on, to a directory that must not exist. Its parent must exist. Errors: already_exists CHECKPOINT_EXISTS.
  virtual Status checkpoint(const std::string& directory) = 0;
  // Approximate bytes held, on disk and in memory.
  virtual uint64_t size_bytes() = 0;
};

}  // namespace uccp::storage
