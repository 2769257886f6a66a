#include "storage/gathered_kv.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace uccp::storage {
namespace {

using Change = KvBatch::Change;
using Changes = std::vector<Change>;

// Of a layer's filter, for each change: few enough keys seem to be there that are not.
constexpr size_t kFilterBitsPerChange = 16;

// In the order of keys, of each key the last change.
Changes in_order(const KvBatch& batch) {
  // As most batches come.
  if (std::ranges::is_sorted(batch.changes(), std::less_equal<>(), &Change::key)) return batch.changes();
  std::map<std::string, std::optional<std::string>> newest;
  for (const Change& change : batch.changes()) newest[change.key] = change.value;
  Changes changes;
  for (auto& [key, value] : newest) changes.push_back({key, std::move(value)});
  return changes;
}

size_t lower_bound(const Changes& changes, std::string_view key) {
  const auto at = std::ranges::lower_bound(changes, key, std::less<>(), &Change::key);
  return static_cast<size_t>(at - changes.begin());
}

// Makes one run of several that are in the order of keys; of equal keys, that of the first run comes first. `ends`: 0,
// and where each run ends.
void merge_runs(std::vector<const Change*>& rows, std::vector<ptrdiff_t> ends) {
  const auto before = [](const Change* a, const Change* b) { return a->key < b->key; };
  std::vector<const Change*> merged(rows.size());
  while (ends.size() > 2) {
    std::vector<ptrdiff_t> merged_ends{0};
    // Two neighbours become one; the last may be without a neighbour.
    for (size_t i = 1; i < ends.size(); i += 2) {
      const auto first = rows.begin() + ends[i - 1], middle = rows.begin() + ends[i];
      const auto last = i + 1 < ends.size() ? rows.begin() + ends[i + 1] : middle;
      std::merge(first, middle, middle, last, merged.begin() + ends[i - 1], before);
      merged_ends.push_back(last - rows.begin());
    }
    rows.swap(merged);
    ends = std::move(merged_ends);
  }
}

}  // namespace

// One batch, on top of those before it.
class GatheredKv::Layer {
 public:
  Layer(Changes changes, std::shared_ptr<const Layer> older) : changes_(std::move(changes)), older_(std::move(older)) {
    filter_.resize(std::bit_ceil(std::max<size_t>(1, changes_.size() * kFilterBitsPerChange / kWordBits)));
    for (const Change& change : changes_) {
      const uint64_t hash = hash64(change.key);
      filter_[word_of(hash)] |= bits_of(hash);
    }
  }

  const Changes& changes() const { return changes_; }
  const Layer* older() const { return older_.get(); }
  // `hash`: hash64() of the key.
  const Change* find(std::string_view key, uint64_t hash) const {
    if ((filter_[word_of(hash)] & bits_of(hash)) != bits_of(hash)) return nullptr;
    const size_t at = lower_bound(changes_, key);
    return at < changes_.size() && changes_[at].key == key ? &changes_[at] : nullptr;
  }

 private:
  static constexpr size_t kWordBits = 64;
  // Two bits of one word stand for a key.
  size_t word_of(uint64_t hash) const { return (hash >> 12) & (filter_.size() - 1); }
  static uint64_t bits_of(uint64_t hash) { return uint64_t{1} << (hash & 63) | uint64_t{1} << (hash >> 6 & 63); }

  const Changes changes_;
  const std::shared_ptr<const Layer> older_;
  std::vector<uint64_t> filter_;  // as many words as a power of two
};

// Goes through all layers and the map below at once. Of one key the newest layer counts.
class GatheredKv::Iterator final : public KvIterator {
 public:
  Iterator(const Layer* newest, std::unique_ptr<KvIterator> below) : below_(std::move(below)) {
    for (const Layer* layer = newest; layer != nullptr; layer = layer->older())
      places_.push_back({&layer->changes(), 0});
  }

  void seek(std::string_view key) override {
    forward_ = true;
    for (Place& place : places_) place.at = lower_bound(*place.changes, key);
    below_->seek(key);
    settle();
  }
  void seek_before(std::string_view key) override {
    forward_ = false;
    for (Place& place : places_) place.at = lower_bound(*place.changes, key);
    below_->seek_before(key);
    settle();
  }
  void next() override {
    if (!forward_) return seek(std::string(key()) + '\0');
    leave();
    settle();
  }
  void previous() override {
    if (forward_) return seek_before(std::string(key()));
    leave();
    settle();
  }
  bool valid() const override { return at_ != At::kNowhere; }
  std::string_view key() const override { return at_ == At::kLayer ? std::string_view(first_->key) : below_->key(); }
  std::string_view value() const override {
    return at_ == At::kLayer ? std::string_view(*first_->value) : below_->value();
  }
  Status status() const override { return below_->status(); }

 private:
  enum class At : uint8_t { kNowhere, kLayer, kBelow };
  // On the way forward the next change is that at `at`, on the way back the one before it.
  struct Place {
    const Changes* changes;
    size_t at;
    const Change* next(bool forward) const {
      if (forward) return at < changes->size() ? &(*changes)[at] : nullptr;
      return at > 0 ? &(*changes)[at - 1] : nullptr;
    }
    void step(bool forward) { forward ? ++at : --at; }
  };
  bool comes_before(std::string_view a, std::string_view b) const { return forward_ ? a < b : a > b; }

  // To the next key that is there, from where the places are.
  void settle() {
    find_first();
    while (true) {
      const bool below = below_->valid();
      at_ = At::kNowhere;
      // What could not be read below is not known to be absent.
      if (!below && !below_->status().is_ok()) return;
      if (below && (first_ == nullptr || comes_before(below_->key(), first_->key))) at_ = At::kBelow;
      else if (first_ != nullptr) at_ = At::kLayer;
      if (at_ != At::kLayer || first_->value) return;
      leave();
    }
  }
  // Goes past the key where the iterator is, in all layers and below.
  void leave() {
    if (at_ == At::kBelow) return step_below();
    const std::string_view gone = first_->key;
    for (Place& place : places_) {
      if (const Change* change = place.next(forward_); change != nullptr && change->key == gone) place.step(forward_);
    }
    if (below_->valid() && below_->key() == gone) step_below();
    find_first();
  }
  void step_below() { forward_ ? below_->next() : below_->previous(); }
  void find_first() {
    first_ = nullptr;
    for (const Place& place : places_) {
      const Change* change = place.next(forward_);
      if (change != nullptr && (first_ == nullptr || comes_before(change->key, first_->key))) first_ = change;
    }
  }

  const std::unique_ptr<KvIterator> below_;
  std::vector<Place> places_;  // newest first
  bool forward_ = true;
  const Change* first_ = nullptr;  // of all layers; null: they are at their end
  At at_ = At::kNowhere;
};

class GatheredKv::View final : public KvView {
 public:
  View(std::shared_ptr<const KvView> below, std::shared_ptr<const Layer> newest)
      : below_(std::move(below)), newest_(std::move(newest)) {}

  Result<std::optional<std::string>> get(std::string_view key) const override {
    if (newest_ != nullptr) {
      const uint64_t hash = hash64(key);
      for (const Layer* layer = newest_.get(); layer != nullptr; layer = layer->older()) {
        if (const Change* change = layer->find(key, hash)) return change->value;
      }
    }
    return below_->get(key);
  }
  std::unique_ptr<KvIterator> iterate() const override {
    if (newest_ == nullptr) return below_->iterate();
    return std::make_unique<Iterator>(newest_.get(), below_->iterate());
  }

 private:
  const std::shared_ptr<const KvView> below_;
  const std::shared_ptr<const Layer> newest_;
};

GatheredKv::~GatheredKv() {
  std::lock_guard lock(mutex_);
  // Whoever needs it to be there flushes, and hears of an error.
  (void)write_below();
}

Status GatheredKv::write(const KvBatch& batch) {
  if (batch.empty()) return {};
  Changes changes = in_order(batch);
  std::lock_guard lock(mutex_);
  for (const Change& change : changes) bytes_ += change.key.size() + (change.value ? change.value->size() : 0);
  newest_ = std::make_shared<const Layer>(std::move(changes), std::move(newest_));
  ++batches_;
  if (batches_ < options_.batches_max && bytes_ < options_.bytes_max) return {};
  return write_below();
}

Status GatheredKv::write_below() {
  if (newest_ == nullptr) return {};
  // Newest first, so that of equal keys the newest comes first.
  std::vector<const Change*> rows;
  std::vector<ptrdiff_t> ends{0};
  for (const Layer* layer = newest_.get(); layer != nullptr; layer = layer->older()) {
    for (const Change& change : layer->changes()) rows.push_back(&change);
    ends.push_back(static_cast<ptrdiff_t>(rows.size()));
  }
  merge_runs(rows, std::move(ends));
  KvBatch batch;
  const Change* last = nullptr;
  for (const Change* row : rows) {
    if (last != nullptr && last->key == row->key) continue;
    last = row;
    if (row->value) batch.put(row->key, *row->value);
    else batch.erase(row->key);
  }
  UCCP_RETURN_IF_ERROR(below_.write(batch));
  newest_.reset();
  below_view_.reset();
  batches_ = bytes_ = 0;
  return {};
}

Status GatheredKv::erase_range(std::string_view from, std::string_view to) {
  std::lock_guard lock(mutex_);
  UCCP_RETURN_IF_ERROR(write_below());
  below_view_.reset();
  return below_.erase_range(from, to);
}

std::shared_ptr<const KvView> GatheredKv::view() {
  std::lock_guard lock(mutex_);
  if (below_view_ == nullptr) below_view_ = below_.view();
  return std::make_shared<View>(below_view_, newest_);
}

Status GatheredKv::flush() {
  {
    std::lock_guard lock(mutex_);
    UCCP_RETURN_IF_ERROR(write_below());
  }
  return below_.flush();
}

Status GatheredKv::checkpoint(const std::string& directory) {
  std::lock_guard lock(mutex_);
  UCCP_RETURN_IF_ERROR(write_below());
  return below_.checkpoint(directory);
}

uint64_t GatheredKv::size_bytes() {
  std::lock_guard lock(mutex_);
  return below_.size_bytes() + bytes_;
}

}  // namespace uccp::storage
