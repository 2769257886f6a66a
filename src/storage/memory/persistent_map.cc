#include "storage/memory/persistent_map.h"

#include <utility>

#include "base/hash.h"

namespace uccp::storage {

const PersistentMap::Node* PersistentMap::find(const Node* node, std::string_view key) {
  while (node != nullptr) {
    const int order = key.compare(*node->key);
    if (order == 0) return node;
    node = order < 0 ? node->left.get() : node->right.get();
  }
  return nullptr;
}

PersistentMap::Link PersistentMap::own(Link node) const {
  if (node->epoch == epoch_) return node;
  auto copy = std::make_shared<Node>(*node);
  copy->epoch = epoch_;
  return copy;
}

// Into the keys < `key` and the others.
std::pair<PersistentMap::Link, PersistentMap::Link> PersistentMap::split(Link node, std::string_view key) const {
  if (!node) return {};
  node = own(std::move(node));
  if (*node->key < key) {
    auto [low, high] = split(std::move(node->right), key);
    node->right = std::move(low);
    return {std::move(node), std::move(high)};
  }
  auto [low, high] = split(std::move(node->left), key);
  node->left = std::move(high);
  return {std::move(low), std::move(node)};
}

// Requires all keys in `low` < all in `high`.
PersistentMap::Link PersistentMap::merge(Link low, Link high) const {
  if (!low) return high;
  if (!high) return low;
  if (low->priority > high->priority) {
    low = own(std::move(low));
    low->right = merge(std::move(low->right), std::move(high));
    return low;
  }
  high = own(std::move(high));
  high->left = merge(std::move(low), std::move(high->left));
  return high;
}

// Requires that the key of `node` is not in `at`.
PersistentMap::Link PersistentMap::insert(Link at, Link node) {
  if (!at) return node;
  if (node->priority > at->priority) {
    auto [low, high] = split(std::move(at), *node->key);
    node->left = std::move(low);
    node->right = std::move(high);
    return node;
  }
  at = own(std::move(at));
  Link& child = *node->key < *at->key ? at->left : at->right;
  child = insert(std::move(child), std::move(node));
  return at;
}

// Requires that `key` is in `at`.
PersistentMap::Link PersistentMap::erase(Link at, std::string_view key) {
  const int order = key.compare(*at->key);
  at = own(std::move(at));
  if (order == 0) return merge(std::move(at->left), std::move(at->right));
  Link& child = order < 0 ? at->left : at->right;
  child = erase(std::move(child), key);
  return at;
}

void PersistentMap::put(std::string key, std::string value) {
  bytes_ += value.size();
  auto stored = std::make_shared<const std::string>(std::move(value));
  if (const Node* old = find(root_.get(), key)) {
    bytes_ -= old->value->size();
    Link* link = &root_;
    while (true) {
      *link = own(std::move(*link));
      const int order = std::string_view(key).compare(*(*link)->key);
      if (order == 0) break;
      link = order < 0 ? &(*link)->left : &(*link)->right;
    }
    (*link)->value = std::move(stored);
    return;
  }
  bytes_ += key.size();
  ++size_;
  const uint64_t priority = hash64(key);
  auto node = std::make_shared<Node>(Node{std::make_shared<const std::string>(std::move(key)), std::move(stored), priority, epoch_,
                                          nullptr, nullptr});
  root_ = insert(std::move(root_), std::move(node));
}

void PersistentMap::erase(std::string_view key) {
  const Node* old = find(root_.get(), key);
  if (old == nullptr) return;
  bytes_ -= old->key->size() + old->value->size();
  --size_;
  root_ = erase(std::move(root_), key);
}

void PersistentMap::count_out(const Node* node) {
  if (node == nullptr) return;
  bytes_ -= node->key->size() + node->value->size();
  --size_;
  count_out(node->left.get());
  count_out(node->right.get());
}

void PersistentMap::erase_range(std::string_view from, std::string_view to) {
  if (to <= from) return;
  auto [low, rest] = split(std::move(root_), from);
  auto [middle, high] = split(std::move(rest), to);
  count_out(middle.get());
  root_ = merge(std::move(low), std::move(high));
}

PersistentMap::Root PersistentMap::freeze() {
  ++epoch_;
  return root_;
}

void PersistentMap::revert(Root root, uint64_t bytes, uint64_t size) {
  ++epoch_;
  // Sound: nodes of older epochs are copied before they are changed.
  root_ = std::const_pointer_cast<Node>(root);
  bytes_ = bytes;
  size_ = size;
}

void PersistentMap::Cursor::seek(std::string_view key) {
  path_.clear();
  size_t kept = 0;
  for (const Node* node = root_; node != nullptr;) {
    path_.push_back(node);
    if (*node->key < key) {
      node = node->right.get();
    } else {
      kept = path_.size();
      node = node->left.get();
    }
  }
  path_.resize(kept);
}

void PersistentMap::Cursor::seek_before(std::string_view key) {
  path_.clear();
  size_t kept = 0;
  for (const Node* node = root_; node != nullptr;) {
    path_.push_back(node);
    if (*node->key < key) {
      kept = path_.size();
      node = node->right.get();
    } else {
      node = node->left.get();
    }
  }
  path_.resize(kept);
}

void PersistentMap::Cursor::next() {
  if (const Node* node = path_.back()->right.get()) {
    for (; node != nullptr; node = node->left.get()) path_.push_back(node);
    return;
  }
  const Node* child = nullptr;
  do {
    child = path_.back();
    path_.pop_back();
  } while (!path_.empty() && path_.back()->right.get() == child);
}

void PersistentMap::Cursor::previous() {
  if (const Node* node = path_.back()->left.get()) {
    for (; node != nullptr; node = node->right.get()) path_.push_back(node);
    return;
  }
  const Node* child = nullptr;
  do {
    child = path_.back();
    path_.pop_back();
  } while (!path_.empty() && path_.back()->left.get() == child);
}

}  // namespace uccp::storage
