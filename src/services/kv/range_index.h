// Finds all ranges that contain a key, among many: an interval tree of distinct ranges, each with its values, and a map
// for single keys. Finding k of n ranges costs O(k log n).
//
// The tree is a treap (Seidel and Aragon, "Randomized search trees", 1996) ordered by the beginnings, with the greatest
// end below each node; priorities come from a hash of the range, so its shape depends on its content only. One thread.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "services/kv/kv_rows.h"

namespace uccp::kv {

template <typename Value>
class RangeIndex {
 public:
  void add(const KeyRange& range, Value value) {
    if (range.single) return singles_[range.from].push_back(value);
    std::unique_ptr<Node> below, equal, above;
    split(std::move(root_), range, below, equal, above);
    if (!equal) equal = std::make_unique<Node>(range);
    equal->values.push_back(value);
    root_ = merge(merge(std::move(below), std::move(equal)), std::move(above));
  }
  // Requires that it was added.
  void remove(const KeyRange& range, Value value) {
    if (range.single) {
      const auto it = singles_.find(range.from);
      std::erase(it->second, value);
      if (it->second.empty()) singles_.erase(it);
      return;
    }
    std::unique_ptr<Node> below, equal, above;
    split(std::move(root_), range, below, equal, above);
    std::erase(equal->values, value);
    if (equal->values.empty()) equal.reset();
    root_ = merge(merge(std::move(below), std::move(equal)), std::move(above));
  }
  // `visit` gets every value whose range contains the key. It must not change the index.
  template <typename Visit>
  void find(std::string_view key, const Visit& visit) const {
    if (const auto it = singles_.find(key); it != singles_.end()) {
      for (const Value& value : it->second) visit(value);
    }
    find(root_.get(), key, visit);
  }
  bool empty() const { return singles_.empty() && !root_; }

 private:
  struct Node {
    explicit Node(const KeyRange& r)
        : range(r), priority(hash64(ByteWriter().key_part(r.from).raw(r.to).data())), last(r.to) {}
    KeyRange range;
    uint64_t priority;
    std::string last;  // greatest end below; empty: there is none
    std::vector<Value> values;
    std::unique_ptr<Node> left, right;
  };
  using Tree = std::unique_ptr<Node>;

  // Ends are ordered with "no end" as the greatest.
  static bool ends_before(std::string_view a, std::string_view b) { return !a.empty() && (b.empty() || a < b); }
  static int compare(const KeyRange& a, const KeyRange& b) {
    if (a.from != b.from) return a.from < b.from ? -1 : 1;
    if (a.to == b.to) return 0;
    return ends_before(a.to, b.to) ? -1 : 1;
  }
  static Tree update(Tree node) {
    node->last = node->range.to;
    for (const Node* child : {node->left.get(), node->right.get()}) {
      if (child != nullptr && ends_before(node->last, child->last)) node->last = child->last;
    }
    return node;
  }
  static Tree merge(Tree a, Tree b) {
    if (!a || !b) return a ? std::move(a) : std::move(b);
    if (a->priority >= b->priority) {
      a->right = merge(std::move(a->right), std::move(b));
      return update(std::move(a));
    }
    b->left = merge(std::move(a), std::move(b->left));
    return update(std::move(b));
  }
  static void split(Tree tree, const KeyRange& at, Tree& below, Tree& equal, Tree& above) {
    if (!tree) return;
    const int order = compare(tree->range, at);
    if (order < 0) {
      Tree rest;
      split(std::move(tree->right), at, rest, equal, above);
      tree->right = std::move(rest);
      below = update(std::move(tree));
    } else if (order > 0) {
      Tree rest;
      split(std::move(tree->left), at, below, equal, rest);
      tree->left = std::move(rest);
      above = update(std::move(tree));
    } else {
      below = std::move(tree->left);
      above = std::move(tree->right);
      equal = update(std::move(tree));
    }
  }
  template <typename Visit>
  static void find(const Node* node, std::string_view key, const Visit& visit) {
    if (node == nullptr || !ends_before(key, node->last)) return;
    find(node->left.get(), key, visit);
    if (node->range.from > key) return;
    if (node->range.contains(key)) {
      for (const Value& value : node->values) visit(value);
    }
    find(node->right.get(), key, visit);
  }

  std::map<std::string, std::vector<Value>, std::less<>> singles_;
  Tree root_;
};

}  // namespace uccp::kv
