#include "storage/memory/memory_kv.h"

#include <utility>

#include "base/bytes.h"

namespace uccp::storage {
namespace {

// Checkpoint file, version 1: magic, version (u32), count (u64), key and value of each pair as ByteWriter::bytes in the
// order of keys, CRC-32C (u32) of all before it. docs/formats/kv.md
constexpr std::string_view kMagic = "UCCPMKV\n";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kCheckpointBytesMax = uint64_t{4} << 30;

std::string checkpoint_path(const std::string& directory) { return directory + "/memory.kv"; }

class MemoryIterator final : public KvIterator {
 public:
  explicit MemoryIterator(PersistentMap::Root root) : root_(std::move(root)), cursor_(root_.get()) {}
  void seek(std::string_view key) override { cursor_.seek(key); }
  void seek_before(std::string_view key) override { cursor_.seek_before(key); }
  void next() override { cursor_.next(); }
  void previous() override { cursor_.previous(); }
  bool valid() const override { return cursor_.valid(); }
  std::string_view key() const override { return cursor_.key(); }
  std::string_view value() const override { return cursor_.value(); }
  Status status() const override { return {}; }

 private:
  const PersistentMap::Root root_;
  PersistentMap::Cursor cursor_;
};

class MemoryView final : public KvView {
 public:
  explicit MemoryView(PersistentMap::Root root) : root_(std::move(root)) {}

  Result<std::optional<std::string>> get(std::string_view key) const override {
    const auto value = PersistentMap::find(root_.get(), key);
    return value ? std::optional<std::string>(*value) : std::nullopt;
  }
  std::unique_ptr<KvIterator> iterate() const override { return std::make_unique<MemoryIterator>(root_); }

 private:
  const PersistentMap::Root root_;
};

}  // namespace

Result<std::unique_ptr<MemoryKv>> MemoryKv::open(FileSystem& files, const std::string& directory) {
  const std::string path = checkpoint_path(directory);
  UCCP_TRY(const std::string data, read_file(files, path, kCheckpointBytesMax));
  const auto damaged = [&] {
    return fail(Code::kCorruption, "CHECKPOINT_DAMAGED", path + " is damaged; take another checkpoint");
  };
  if (data.size() < 4) return damaged();
  const std::string_view body = std::string_view(data).substr(0, data.size() - 4);
  if (ByteReader(std::string_view(data).substr(body.size())).u32() != crc32c(body)) return damaged();
  ByteReader in(body);
  if (in.raw(kMagic.size()) != kMagic || in.u32() != kVersion) return damaged();
  auto kv = std::make_unique<MemoryKv>(&files);
  const uint64_t count = in.u64();
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    const std::string_view key = in.bytes();
    kv->map_.put(key, in.bytes());
  }
  if (!in.at_end()) return damaged();
  UCCP_RETURN_IF_ERROR(kv->flush());
  return kv;
}

Status MemoryKv::write(const KvBatch& batch) {
  for (const KvBatch::Change& change : batch.changes()) {
    if (change.value) {
      map_.put(change.key, *change.value);
    } else {
      map_.erase(change.key);
    }
  }
  return {};
}

Status MemoryKv::erase_range(std::string_view from, std::string_view to) {
  map_.erase_range(from, to);
  return {};
}

std::shared_ptr<const KvView> MemoryKv::view() { return std::make_shared<MemoryView>(map_.freeze()); }

Status MemoryKv::flush() {
  flushed_ = map_.freeze();
  flushed_bytes_ = map_.bytes();
  flushed_size_ = map_.size();
  ++flush_count_;
  return {};
}

void MemoryKv::crash() { map_.revert(flushed_, flushed_bytes_, flushed_size_); }

Status MemoryKv::checkpoint(const std::string& directory) {
  if (files_ == nullptr) {
    return Status(Code::kUnimplemented, "CHECKPOINT_WITHOUT_FILES", "this MemoryKv was made without a file system");
  }
  UCCP_TRY(const bool exists, files_->exists(directory));
  if (exists) return Status(Code::kAlreadyExists, "CHECKPOINT_EXISTS", directory + " exists; choose a new directory");
  UCCP_RETURN_IF_ERROR(files_->make_directories(directory));
  ByteWriter out;
  out.raw(kMagic).u32(kVersion).u64(map_.size());
  const PersistentMap::Root root = map_.freeze();
  PersistentMap::Cursor cursor(root.get());
  for (cursor.seek(""); cursor.valid(); cursor.next()) {
    out.bytes(cursor.key()).bytes(cursor.value());
  }
  out.u32(crc32c(out.data()));
  return write_file_atomically(*files_, checkpoint_path(directory), out.data());
}

}  // namespace uccp::storage
