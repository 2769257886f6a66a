// A process' view of the objects of a namespace: found, pinned and copied without asking anybody.
//
// Protocol: a slot's word is read before and after what it says; a pin counts if the word has not changed after the pin
// was written. The store hides a slot, passes a barrier and looks at the pins in that order (layout.h), so no fence is
// needed here.
// Thread: one at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shm/layout.h"
#include "shm/shared_file.h"

namespace uccp::shm {

class Reader {
 public:
  // Content that stays where it is until unpin().
  struct Pinned {
    uint32_t slot = 0;
    std::string_view content;
  };

  // What the store gave: its index, its segment and a page. The files may be closed afterwards. Errors: corruption
  // INDEX_INVALID; unavailable MEMORY_MAP_FAILED, BARRIER_MISSING.
  static Result<Reader> open(int index_fd, int segment_fd, int page_fd);

  // A copy of the content; false: it is not in the index, ask the store.
  bool copy(const ObjectId& id, std::string& out);
  // Nothing: it is not in the index, or too much is pinned.
  std::optional<Pinned> pin(const ObjectId& id);
  void unpin(uint32_t slot);

 private:
  struct Seen {
    uint32_t slot = 0;
    uint64_t word = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
  };

  Reader(Mapping index, Mapping segment, Mapping page, uint32_t slots);
  std::optional<Seen> find(const ObjectId& id) const;
  bool unchanged(const Seen& seen) const;
  Slot& slot(uint32_t number) const;
  Pin* pins() const { return reinterpret_cast<Pin*>(page_.data()); }
  void count_use(uint32_t slot);

  Mapping index_, segment_, page_;
  uint32_t slots_ = 0;
  std::unordered_map<uint32_t, uint32_t> pinned_;  // place on the page, by slot
  std::vector<uint32_t> free_;                     // places on the page
};

}  // namespace uccp::shm
