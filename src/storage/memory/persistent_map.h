// An ordered map of byte strings whose versions share structure: a copy of the root is a version that never changes.
//
// A B+ tree. A page has its keys and values in one block of memory, so a search touches few lines of it. A change
// copies the pages on the path to it, except for those made since the last freeze(), which no version can share. Pages
// that became small are not merged, only dropped when they are empty. Versions may be read and released on any thread;
// changes belong to one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace uccp::storage {

class PersistentMap {
 public:
  class Page;
  using Root = std::shared_ptr<const Page>;

  // Walks one version, which must outlive it.
  class Cursor {
   public:
    explicit Cursor(const Page* root) : root_(root) {}
    void seek(std::string_view key);         // to the first key >= `key`
    void seek_before(std::string_view key);  // to the last key < `key`
    // Require valid().
    void next();
    void previous();
    std::string_view key() const;
    std::string_view value() const;
    bool valid() const { return depth_ > 0; }

   private:
    struct Step {
      const Page* page;
      size_t slot;
    };
    // Each level has several times fewer pages than the one below it.
    static constexpr size_t kDepthMax = 16;
    void push(const Page* page, size_t slot);
    void descend(std::string_view key);
    void climb_forward();
    void climb_back();

    const Page* root_;
    std::array<Step, kDepthMax> path_;  // from the root to a leaf
    size_t depth_ = 0;                  // 0: not valid
  };

  static std::optional<std::string_view> find(const Page* root, std::string_view key);

  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  void erase_range(std::string_view from, std::string_view to);

  // The map as it is now.
  Root freeze();
  // Makes the map what it was at freeze(), when bytes() and size() were these.
  void revert(Root root, uint64_t bytes, uint64_t size);

  // Of keys and values.
  uint64_t bytes() const { return bytes_; }
  uint64_t size() const { return size_; }

 private:
  using Link = std::shared_ptr<Page>;

  Page& own(Link& link) const;
  // Answers the page that was split off to the right, if any.
  Link put_below(Link& link, std::string_view key, std::string_view value);
  // True if the page is empty then.
  bool erase_below(Link& link, std::string_view key);
  bool erase_range_below(Link& link, std::string_view from, std::optional<std::string_view> to);
  void count_out(const Page& page);
  void shorten();

  Link root_;  // none: empty
  uint64_t epoch_ = 1;
  uint64_t bytes_ = 0;
  uint64_t size_ = 0;
};

}  // namespace uccp::storage
