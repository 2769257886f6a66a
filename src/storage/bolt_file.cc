#include "storage/bolt_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "base/check.h"

namespace uccp::storage {
namespace {

static_assert(std::endian::native == std::endian::little, "the format has the byte order of the machine");

constexpr uint32_t kMagic = 0xED0CDAED;
constexpr uint32_t kVersion = 2;
constexpr uint16_t kBranch = 0x01, kLeaf = 0x02, kMeta = 0x04, kFreeList = 0x10;
constexpr size_t kHeaderBytes = 16, kElementBytes = 16, kMetaBytes = 64, kBucketBytes = 16;
constexpr uint32_t kBucketFlag = 1;
constexpr int kDepthMax = 32;
// Pages are filled so far, so that most pairs of one page fit it.
constexpr size_t kFillBytes = kBoltPageBytes - 256;
constexpr size_t kElementsMax = 60'000;

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
T get(std::string_view in, size_t at) {
  T value;
  std::memcpy(&value, in.data() + at, sizeof value);
  return value;
}

uint64_t fnv(std::string_view bytes) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  return hash;
}

struct Element {
  std::string_view key, value;  // of a leaf
  uint32_t flags = 0;
  uint64_t page = 0;  // of a branch
};

std::string page_bytes(uint64_t id, uint16_t flags, const std::vector<Element>& elements) {
  std::string out;
  put(out, id);
  put(out, flags);
  put(out, static_cast<uint16_t>(elements.size()));
  put(out, uint32_t{0});  // overflow, set when the page is placed
  size_t at = elements.size() * kElementBytes;
  for (const Element& e : elements) {
    // Positions count from the element itself.
    const auto from_here = static_cast<uint32_t>(at - (out.size() - kHeaderBytes));
    if (flags == kLeaf) {
      put(out, e.flags);
      put(out, from_here);
      put(out, static_cast<uint32_t>(e.key.size()));
      put(out, static_cast<uint32_t>(e.value.size()));
    } else {
      put(out, from_here);
      put(out, static_cast<uint32_t>(e.key.size()));
      put(out, e.page);
    }
    at += e.key.size() + e.value.size();
  }
  for (const Element& e : elements) out.append(e.key).append(e.value);
  return out;
}

class Writer {
 public:
  std::string write(const BoltBuckets& buckets) {
    file_.resize(3 * kBoltPageBytes);  // meta, meta, free list
    std::vector<std::string> roots;
    roots.reserve(buckets.size());
    std::vector<Element> top;
    for (const auto& [name, bucket] : buckets) {
      std::vector<Element> pairs;
      pairs.reserve(bucket.size());
      for (const auto& [key, value] : bucket) pairs.push_back({key, value, 0, 0});
      std::string root;
      put(root, bucket.empty() ? uint64_t{0} : tree(pairs));
      put(root, uint64_t{0});
      if (bucket.empty()) root += page_bytes(0, kLeaf, {});  // inside the entry
      roots.push_back(std::move(root));
      top.push_back({name, roots.back(), kBucketFlag, 0});
    }
    const uint64_t root = tree(top);
    place(2, page_bytes(2, kFreeList, {}));
    place(0, meta_page(0, root));
    place(1, meta_page(1, root));
    return std::move(file_);
  }

 private:
  // Writes the page at its place, which has room.
  void place(uint64_t id, const std::string& bytes) { file_.replace(id * kBoltPageBytes, bytes.size(), bytes); }
  uint64_t append(uint16_t flags, const std::vector<Element>& elements) {
    const uint64_t id = file_.size() / kBoltPageBytes;
    std::string bytes = page_bytes(id, flags, elements);
    const size_t pages = (bytes.size() + kBoltPageBytes - 1) / kBoltPageBytes;
    const auto overflow = static_cast<uint32_t>(pages - 1);
    std::memcpy(bytes.data() + 12, &overflow, sizeof overflow);
    bytes.resize(pages * kBoltPageBytes);
    file_ += bytes;
    return id;
  }
  // Leaves, then branches above them until there is one page: its number.
  uint64_t tree(const std::vector<Element>& pairs) {
    std::vector<Element> level = pages_of(kLeaf, pairs);
    while (level.size() > 1) level = pages_of(kBranch, level);
    return level.empty() ? append(kLeaf, {}) : level[0].page;
  }
  std::vector<Element> pages_of(uint16_t flags, const std::vector<Element>& elements) {
    std::vector<Element> above, page;
    size_t bytes = kHeaderBytes;
    const auto flush = [&] {
      if (page.empty()) return;
      const std::string_view first = page[0].key;
      above.push_back({first, {}, 0, append(flags, page)});
      page.clear();
      bytes = kHeaderBytes;
    };
    for (const Element& e : elements) {
      const size_t size = kElementBytes + e.key.size() + e.value.size();
      // A branch has two children at least, or it would be a way to nowhere.
      const size_t least = flags == kBranch ? 2 : 1;
      if (page.size() >= least && (bytes + size > kFillBytes || page.size() >= kElementsMax)) flush();
      page.push_back(e);
      bytes += size;
    }
    flush();
    return above;
  }
  std::string meta_page(uint64_t id, uint64_t root) const {
    std::string out;
    put(out, id);
    put(out, kMeta);
    put(out, uint16_t{0});
    put(out, uint32_t{0});
    std::string meta;
    put(meta, kMagic);
    put(meta, kVersion);
    put(meta, static_cast<uint32_t>(kBoltPageBytes));
    put(meta, uint32_t{0});
    put(meta, root);
    put(meta, uint64_t{0});  // sequence
    put(meta, uint64_t{2});  // free list
    put(meta, static_cast<uint64_t>(file_.size() / kBoltPageBytes));
    put(meta, id);  // transaction: the second meta page is the newer one
    put(meta, fnv(meta));
    return out + meta;
  }

  std::string file_;
};

Status invalid(std::string why) {
  return Status(Code::kCorruption, "BOLT_INVALID", "this is no bbolt file that can be read: " + std::move(why));
}

class Reader {
 public:
  explicit Reader(std::string_view file) : file_(file) {}

  Status open() {
    for (const size_t page : {size_t{0}, size_t{1}}) take_meta(page);
    if (!meta_) return invalid("neither of its meta pages is whole");
    return Status::ok();
  }
  uint64_t root() const { return root_; }

  // False: ended by `visit`.
  using Visit = std::function<bool(const Element&)>;
  Result<bool> walk(uint64_t page, const Visit& visit, int depth = 0) {
    if (depth > kDepthMax || ++visited_ > 2 * (file_.size() / page_bytes_ + 1))
      return fail(invalid("its tree has no end"));
    // As unsigned numbers, so that nothing overflows: page * size is checked by division.
    if (page >= file_.size() / page_bytes_) return fail(invalid("page " + std::to_string(page) + " is not there"));
    const std::string_view header = file_.substr(page * page_bytes_, page_bytes_);
    const uint64_t pages = uint64_t{get<uint32_t>(header, 12)} + 1;
    if (pages > file_.size() / page_bytes_ - page) return fail(invalid("page " + std::to_string(page) + " is cut off"));
    return elements(file_.substr(page * page_bytes_, pages * page_bytes_), visit, depth);
  }
  // The pairs of a page; those of the pages below a branch.
  Result<bool> elements(std::string_view page, const Visit& visit, int depth) {
    if (page.size() < kHeaderBytes) return fail(invalid("a page is cut off"));
    const auto flags = get<uint16_t>(page, 8);
    const size_t count = get<uint16_t>(page, 10);
    const bool leaf = (flags & kLeaf) != 0;
    if (!leaf && (flags & kBranch) == 0) return fail(invalid("a page of its tree is of another kind"));
    if (kHeaderBytes + count * kElementBytes > page.size()) return fail(invalid("a page has more entries than room"));
    for (size_t i = 0; i < count; ++i) {
      const size_t at = kHeaderBytes + i * kElementBytes;
      if (!leaf) {
        UCCP_TRY(const bool go_on, walk(get<uint64_t>(page, at + 8), visit, depth + 1));
        if (!go_on) return false;
        continue;
      }
      const uint64_t begin = at + get<uint32_t>(page, at + 4);
      const uint64_t key = get<uint32_t>(page, at + 8), value = get<uint32_t>(page, at + 12);
      if (begin > page.size() || key > page.size() - begin || value > page.size() - begin - key) {
        return fail(invalid("an entry reaches out of its page"));
      }
      if (!visit({page.substr(begin, key), page.substr(begin + key, value), get<uint32_t>(page, at), 0})) return false;
    }
    return true;
  }

 private:
  void take_meta(size_t number) {
    // The second meta page lies one page behind the first one, whatever that page's size is.
    const size_t at = number == 0 ? 0 : page_bytes_;
    if (file_.size() < at + kHeaderBytes + kMetaBytes) return;
    const std::string_view meta = file_.substr(at + kHeaderBytes, kMetaBytes);
    if (get<uint32_t>(meta, 0) != kMagic || get<uint32_t>(meta, 4) != kVersion) return;
    if (get<uint64_t>(meta, 56) != fnv(meta.substr(0, 56))) return;
    const auto size = get<uint32_t>(meta, 8);
    if (size < 512 || size > (1u << 20)) return;
    const auto transaction = get<uint64_t>(meta, 48);
    if (meta_ && transaction < transaction_) return;
    meta_ = true;
    transaction_ = transaction;
    page_bytes_ = size;
    root_ = get<uint64_t>(meta, 16);
  }

  std::string_view file_;
  bool meta_ = false;
  uint64_t transaction_ = 0, root_ = 0;
  size_t page_bytes_ = kBoltPageBytes;
  size_t visited_ = 0;
};

}  // namespace

std::string write_bolt(const BoltBuckets& buckets) { return Writer().write(buckets); }

Status read_bolt(std::string_view file, std::string_view bucket, const VisitBolt& visit) {
  Reader reader(file);
  UCCP_RETURN_IF_ERROR(reader.open());
  std::optional<std::string_view> found;
  auto walked = reader.walk(reader.root(), [&](const Element& e) {
    if ((e.flags & kBucketFlag) == 0 || e.key != bucket) return true;
    found = e.value;
    return false;
  });
  if (!walked) return std::move(walked.error());
  if (!found) return Status::ok();
  if (found->size() < kBucketBytes) return invalid("the bucket " + std::string(bucket) + " is cut off");
  const auto root = get<uint64_t>(*found, 0);
  const auto pair = [&](const Element& e) { return (e.flags & kBucketFlag) != 0 || visit(e.key, e.value); };
  walked = root == 0 ? reader.elements(found->substr(kBucketBytes), pair, 0) : reader.walk(root, pair);
  return walked ? Status::ok() : std::move(walked.error());
}

}  // namespace uccp::storage
