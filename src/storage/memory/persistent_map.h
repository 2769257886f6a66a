// An ordered map of byte strings whose versions share structure: a copy of the root is a version that never changes.
//
// A treap (Seidel and Aragon, "Randomized search trees", 1996) with the hash of the key as its priority, so its shape
// is a function of its content. A change copies the path to it, except for nodes made since the last freeze(), which no
// version can share. Versions may be read and released on any thread; changes belong to one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace uccp::storage {

class PersistentMap {
 public:
  struct Node;
  using Root = std::shared_ptr<const Node>;

  struct Node {
    std::shared_ptr<const std::string> key;  // shared with the copies of the node
    std::shared_ptr<const std::string> value;
    uint64_t priority = 0;
    uint64_t epoch = 0;  // of the map, when the node was made
    std::shared_ptr<Node> left;
    std::shared_ptr<Node> right;
  };

  // Walks one version, which must outlive it.
  class Cursor {
   public:
    explicit Cursor(const Node* root) : root_(root) {}
    void seek(std::string_view key);         // to the first key >= `key`
    void seek_before(std::string_view key);  // to the last key < `key`
    void next();
    void previous();
    const Node* node() const { return path_.empty() ? nullptr : path_.back(); }

   private:
    const Node* root_;
    std::vector<const Node*> path_;  // from the root to the node
  };

  static const Node* find(const Node* root, std::string_view key);

  void put(std::string key, std::string value);
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
  using Link = std::shared_ptr<Node>;

  Link own(Link node) const;
  std::pair<Link, Link> split(Link node, std::string_view key) const;
  Link merge(Link low, Link high) const;
  Link insert(Link at, Link node);
  Link erase(Link at, std::string_view key);
  void count_out(const Node* node);

  Link root_;
  uint64_t epoch_ = 1;
  uint64_t bytes_ = 0;
  uint64_t size_ = 0;
};

}  // namespace uccp::storage
