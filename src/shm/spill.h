// Objects that had to leave memory, in files (docs/formats/spill.md): one file for what left together, removed when
// nothing in it is needed any more. Content is in pieces, which are encrypted. Files end with the agent that wrote
// them, so nothing is synced. Thread: one, but for read(), which any thread may call; calls block on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "base/status.h"
#include "shm/layout.h"
#include "shm/pieces.h"

namespace uccp::shm {

// Where an object is.
struct SpillPlace {
  uint64_t file = 0;
  uint64_t offset = 0;  // of its pieces
  uint64_t size = 0;    // of its content
  uint64_t stored = 0;  // bytes of its pieces

  bool operator==(const SpillPlace&) const = default;
};

struct SpillObject {
  ObjectId id{};
  std::string_view content;
};

class Spill {
 public:
  // Removes what an earlier one left in the directory. `files` must outlive it. Errors: those of the disk.
  static Result<Spill> open(FileSystem& files, std::string directory, uint64_t bytes_max, Pieces pieces);

  // Writes them into one new file; places in their order. On an error nothing is kept. Errors: exhausted SPILL_FULL,
  // NO_SPACE; unavailable IO_ERROR.
  Result<std::vector<SpillPlace>> write(std::span<const SpillObject> objects);
  // Reads the pieces of an object in their order, until `take` fails. Errors: its; corruption SPILL_DAMAGED;
  // unavailable IO_ERROR.
  using TakePiece = std::function<Status(uint32_t index, std::string_view content)>;
  Status read_pieces(const SpillPlace& place, const ObjectId& id, const TakePiece& take) const;
  // Reads an object back into `out`, which has its size. Errors: as above.
  Status read(const SpillPlace& place, const ObjectId& id, std::span<char> out) const;
  // It is not needed any more.
  void drop(const SpillPlace& place);

  uint64_t bytes() const { return bytes_; }
  uint64_t bytes_max() const { return bytes_max_; }
  std::string path_of(uint64_t file) const;

 private:
  struct Kept {
    uint64_t bytes = 0;
    size_t objects = 0;
  };

  Spill(FileSystem& files, std::string directory, uint64_t bytes_max, Pieces pieces)
      : files_(&files), directory_(std::move(directory)), bytes_max_(bytes_max), pieces_(std::move(pieces)) {}
  using Where = std::function<std::span<char>(uint64_t begin, size_t size)>;
  Status read(const SpillPlace& place, const ObjectId& id, const Where& where, const TakePiece& take) const;
  Result<uint64_t> write_one(File& file, uint64_t at, const SpillObject& object);

  FileSystem* files_;
  std::string directory_;
  uint64_t bytes_max_ = 0;
  Pieces pieces_;
  uint64_t bytes_ = 0;
  uint64_t next_file_ = 1;
  std::map<uint64_t, Kept> kept_;
};

}  // namespace uccp::shm
