#include "storage/memory/persistent_map.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"

namespace uccp::storage {
namespace {

constexpr size_t kSlotsMax = 24;
// Of a leaf with more than one entry.
constexpr size_t kLeafBytesMax = 4096;
// So that the next few changes of a copied page do not move it.
constexpr size_t kSpareBytes = 512;

}  // namespace

// Slots in the order of their keys. An inner page has a child for each: it holds the keys from that of the slot to that
// of the next. The first slot of an inner page holds all smaller keys too, so its own is never looked at.
class PersistentMap::Page {
 public:
  Page(uint64_t epoch, bool leaf) : epoch(epoch), leaf(leaf) {}

  struct Slot {
    uint32_t at = 0;  // of the key in `data`; the value follows
    uint32_t key_bytes = 0;
    uint32_t value_bytes = 0;
  };

  const uint64_t epoch;  // of the map, when the page was made
  const bool leaf;
  std::vector<Slot> slots;
  std::vector<Link> children;

  std::string_view key(size_t i) const { return {data_.data() + slots[i].at, slots[i].key_bytes}; }
  std::string_view value(size_t i) const {
    return {data_.data() + slots[i].at + slots[i].key_bytes, slots[i].value_bytes};
  }
  // The first slot from `low` on whose key is not smaller.
  size_t lower_bound(std::string_view wanted, size_t low = 0) const {
    for (size_t high = slots.size(); low < high;) {
      const size_t middle = (low + high) / 2;
      if (key(middle) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  // The slot of an inner page under which the key belongs.
  size_t slot_of(std::string_view wanted) const {
    const size_t at = lower_bound(wanted, 1);
    return at < slots.size() && key(at) == wanted ? at : at - 1;
  }
  bool is_full() const { return slots.size() > kSlotsMax || (leaf && slots.size() > 1 && live_ > kLeafBytesMax); }

  void insert(size_t i, std::string_view key, std::string_view value, Link child) {
    slots.insert(slots.begin() + static_cast<ptrdiff_t>(i), append(key, value));
    if (!leaf) children.insert(children.begin() + static_cast<ptrdiff_t>(i), std::move(child));
  }
  // `key` is that of the slot.
  void replace(size_t i, std::string_view key, std::string_view value) {
    if (value.size() == slots[i].value_bytes) {
      value.copy(data_.data() + slots[i].at + slots[i].key_bytes, value.size());
      return;
    }
    live_ -= slots[i].key_bytes + slots[i].value_bytes;
    if (data_.size() > 2 * live_ + kLeafBytesMax) compact(slots[i]);
    slots[i] = append(key, value);
  }
  void erase(size_t i) { erase(i, i + 1); }
  void erase(size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) live_ -= slots[i].key_bytes + slots[i].value_bytes;
    slots.erase(slots.begin() + static_cast<ptrdiff_t>(first), slots.begin() + static_cast<ptrdiff_t>(last));
    if (leaf) return;
    children.erase(children.begin() + static_cast<ptrdiff_t>(first), children.begin() + static_cast<ptrdiff_t>(last));
  }
  // All of another page: in one piece unless much of it is no longer used.
  void take(const Page& from) {
    if (from.data_.size() > from.live_ + kSpareBytes) return take(from, 0, from.slots.size());
    data_.reserve(from.data_.size() + kSpareBytes);
    data_ = from.data_;
    live_ = from.live_;
    slots.reserve(kSlotsMax + 1);
    slots = from.slots;
    if (leaf) return;
    children.reserve(kSlotsMax + 1);
    children = from.children;
  }
  // Slots [first, last) of another page, without what it no longer uses.
  void take(const Page& from, size_t first, size_t last) {
    size_t bytes = 0;
    for (size_t i = first; i < last; ++i) bytes += from.slots[i].key_bytes + from.slots[i].value_bytes;
    data_.reserve(bytes + kSpareBytes);
    slots.reserve(kSlotsMax + 1);
    for (size_t i = first; i < last; ++i) slots.push_back(append(from.key(i), from.value(i)));
    if (leaf) return;
    children.reserve(kSlotsMax + 1);
    children.assign(from.children.begin() + static_cast<ptrdiff_t>(first),
                    from.children.begin() + static_cast<ptrdiff_t>(last));
  }

 private:
  Slot append(std::string_view key, std::string_view value) {
    const Slot slot{static_cast<uint32_t>(data_.size()), static_cast<uint32_t>(key.size()),
                    static_cast<uint32_t>(value.size())};
    data_.append(key).append(value);
    UCCP_CHECK(data_.size() <= UINT32_MAX, "a page has less than 4 GiB");
    live_ += key.size() + value.size();
    return slot;
  }
  // Moves what is in use together. The value of `stale` is not.
  void compact(Slot& stale) {
    stale.value_bytes = 0;
    std::string old = std::exchange(data_, {});
    data_.reserve(live_ + stale.key_bytes + kSpareBytes);
    for (Slot& slot : slots) {
      const auto at = static_cast<uint32_t>(data_.size());
      data_.append(old, slot.at, slot.key_bytes + slot.value_bytes);
      slot.at = at;
    }
  }

  std::string data_;
  size_t live_ = 0;  // bytes of it that slots use
};

std::optional<std::string_view> PersistentMap::find(const Page* page, std::string_view key) {
  if (page == nullptr) return std::nullopt;
  while (!page->leaf) page = page->children[page->slot_of(key)].get();
  const size_t at = page->lower_bound(key);
  if (at == page->slots.size() || page->key(at) != key) return std::nullopt;
  return page->value(at);
}

PersistentMap::Page& PersistentMap::own(Link& link) const {
  if (link->epoch == epoch_) return *link;
  auto copy = std::make_shared<Page>(epoch_, link->leaf);
  copy->take(*link);
  link = std::move(copy);
  return *link;
}

void PersistentMap::put(std::string_view key, std::string_view value) {
  if (!root_) root_ = std::make_shared<Page>(epoch_, true);
  Link right = put_below(root_, key, value);
  if (!right) return;
  auto top = std::make_shared<Page>(epoch_, false);
  const std::string_view separator = right->key(0);
  top->insert(0, "", "", std::move(root_));
  top->insert(1, separator, "", right);
  root_ = std::move(top);
}

PersistentMap::Link PersistentMap::put_below(Link& link, std::string_view key, std::string_view value) {
  Page& page = own(link);
  size_t at = 0;
  if (page.leaf) {
    at = page.lower_bound(key);
    bytes_ += value.size();
    if (at < page.slots.size() && page.key(at) == key) {
      bytes_ -= page.slots[at].value_bytes;
      page.replace(at, key, value);
    } else {
      bytes_ += key.size();
      ++size_;
      page.insert(at, key, value, nullptr);
    }
  } else {
    const size_t slot = page.slot_of(key);
    Link right = put_below(page.children[slot], key, value);
    if (!right) return nullptr;
    at = slot + 1;
    const std::string_view separator = right->key(0);
    page.insert(at, separator, "", right);
  }
  if (!page.is_full()) return nullptr;
  // Keys that come in order leave full pages behind.
  const size_t count = page.slots.size();
  const size_t cut = at + 1 == count ? at : count / 2;
  auto right = std::make_shared<Page>(epoch_, page.leaf);
  right->take(page, cut, count);
  page.erase(cut, count);
  return right;
}

void PersistentMap::erase(std::string_view key) {
  if (!find(root_.get(), key)) return;
  if (erase_below(root_, key)) root_.reset();
  shorten();
}

bool PersistentMap::erase_below(Link& link, std::string_view key) {
  Page& page = own(link);
  if (page.leaf) {
    const size_t at = page.lower_bound(key);
    bytes_ -= page.slots[at].key_bytes + page.slots[at].value_bytes;
    --size_;
    page.erase(at);
  } else {
    const size_t slot = page.slot_of(key);
    if (erase_below(page.children[slot], key)) page.erase(slot);
  }
  return page.slots.empty();
}

void PersistentMap::count_out(const Page& page) {
  for (const Link& child : page.children) count_out(*child);
  if (!page.leaf) return;
  for (const Page::Slot& slot : page.slots) bytes_ -= slot.key_bytes + slot.value_bytes;
  size_ -= page.slots.size();
}

void PersistentMap::erase_range(std::string_view from, std::string_view to) {
  if (to <= from || !root_) return;
  if (erase_range_below(root_, from, to)) root_.reset();
  shorten();
}

// Without `to` the range goes to the end of the page. The range may begin before the page.
bool PersistentMap::erase_range_below(Link& link, std::string_view from, std::optional<std::string_view> to) {
  Page& page = own(link);
  const size_t count = page.slots.size();
  if (page.leaf) {
    const size_t first = page.lower_bound(from);
    const size_t last = to ? page.lower_bound(*to) : count;
    for (size_t i = first; i < last; ++i) bytes_ -= page.slots[i].key_bytes + page.slots[i].value_bytes;
    size_ -= last - first;
    page.erase(first, last);
    return page.slots.empty();
  }
  const size_t first = page.slot_of(from);
  const size_t last = to ? page.slot_of(*to) : count - 1;
  // Children between the two that the ends of the range are in go as they are.
  const bool last_is_empty = last > first && erase_range_below(page.children[last], from, to);
  for (size_t i = first + 1; i < last; ++i) count_out(*page.children[i]);
  const auto rest = last == first ? to : std::nullopt;
  const bool first_is_empty = erase_range_below(page.children[first], from, rest);
  page.erase(first_is_empty ? first : first + 1, std::max(first + 1, last_is_empty ? last + 1 : last));
  return page.slots.empty();
}

// A root with one child is not needed.
void PersistentMap::shorten() {
  while (root_ && !root_->leaf && root_->slots.size() == 1) root_ = Link(root_->children.front());
}

PersistentMap::Root PersistentMap::freeze() {
  ++epoch_;
  return root_;
}

void PersistentMap::revert(Root root, uint64_t bytes, uint64_t size) {
  ++epoch_;
  // Sound: pages of older epochs are copied before they are changed.
  root_ = std::const_pointer_cast<Page>(root);
  bytes_ = bytes;
  size_ = size;
}

std::string_view PersistentMap::Cursor::key() const {
  const Step& step = path_[depth_ - 1];
  return step.page->key(step.slot);
}

std::string_view PersistentMap::Cursor::value() const {
  const Step& step = path_[depth_ - 1];
  return step.page->value(step.slot);
}

void PersistentMap::Cursor::push(const Page* page, size_t slot) {
  UCCP_CHECK(depth_ < kDepthMax, "a map has fewer levels");
  path_[depth_++] = {page, slot};
}

// To where the key is in its leaf, or would be: that may be behind the last slot.
void PersistentMap::Cursor::descend(std::string_view key) {
  depth_ = 0;
  if (root_ == nullptr) return;
  const Page* page = root_;
  while (!page->leaf) {
    const size_t slot = page->slot_of(key);
    push(page, slot);
    page = page->children[slot].get();
  }
  push(page, page->lower_bound(key));
}

void PersistentMap::Cursor::seek(std::string_view key) {
  descend(key);
  if (depth_ > 0 && path_[depth_ - 1].slot == path_[depth_ - 1].page->slots.size()) climb_forward();
}

void PersistentMap::Cursor::seek_before(std::string_view key) {
  descend(key);
  if (depth_ > 0) previous();
}

void PersistentMap::Cursor::next() {
  Step& step = path_[depth_ - 1];
  if (++step.slot == step.page->slots.size()) climb_forward();
}

void PersistentMap::Cursor::previous() {
  Step& step = path_[depth_ - 1];
  if (step.slot == 0) climb_back();
  else --step.slot;
}

// To the first slot of the next leaf.
void PersistentMap::Cursor::climb_forward() {
  do {
    if (--depth_ == 0) return;
  } while (path_[depth_ - 1].slot + 1 == path_[depth_ - 1].page->slots.size());
  Step& step = path_[depth_ - 1];
  const Page* page = step.page->children[++step.slot].get();
  for (; !page->leaf; page = page->children.front().get()) push(page, 0);
  push(page, 0);
}

// To the last slot of the leaf before.
void PersistentMap::Cursor::climb_back() {
  do {
    if (--depth_ == 0) return;
  } while (path_[depth_ - 1].slot == 0);
  Step& step = path_[depth_ - 1];
  const Page* page = step.page->children[--step.slot].get();
  for (; !page->leaf; page = page->children.back().get()) push(page, page->slots.size() - 1);
  push(page, page->slots.size() - 1);
}

}  // namespace uccp::storage
