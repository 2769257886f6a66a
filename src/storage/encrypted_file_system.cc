#include "storage/encrypted_file_system.h"

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/disk_cipher.h"

namespace uccp::storage {
namespace {

constexpr std::string_view kMagic = "UCCPENC\n";
constexpr uint32_t kVersion = 1;
constexpr size_t kSaltBytes = 32;
// A page of its own, so that sectors of the content are sectors of the disk.
constexpr uint64_t kHeaderBytes = 4096;
constexpr size_t kHeaderUsedBytes = 8 + 4 + KeyRing::kIdBytes + kSaltBytes + 1 + 4;
constexpr uint64_t kBlock = XtsCipher::kBlockBytes;
constexpr uint64_t kUnit = XtsCipher::kUnitBytes;
constexpr std::string_view kPurpose = "uccp file";

uint64_t down(uint64_t at, uint64_t step) { return at / step * step; }
uint64_t up(uint64_t at, uint64_t step) { return down(at + step - 1, step); }

struct Header {
  std::string key_id;
  std::string salt;
  uint8_t padding = 0;  // bytes of the last block that are no content
};

std::string encode(const Header& header) {
  ByteWriter out;
  out.raw(kMagic).u32(kVersion).raw(header.key_id).raw(header.salt).u8(header.padding);
  return out.u32(crc32c(out.data())).take();
}

// None if it is no encrypted file. An unknown version has a right checksum too.
Result<std::optional<Header>> decode(const std::string& path, std::string_view bytes) {
  ByteReader in(bytes);
  if (in.raw(kMagic.size()) != kMagic) return std::nullopt;
  const uint32_t version = in.u32();
  Header header;
  header.key_id = in.raw(KeyRing::kIdBytes);
  header.salt = in.raw(kSaltBytes);
  header.padding = in.u8();
  const bool intact = in.u32() == crc32c(bytes.substr(0, kHeaderUsedBytes - 4));
  if (!in.ok() || !intact || (version == kVersion && header.padding >= kBlock)) {
    return fail(Code::kCorruption, "ENCRYPTED_FILE_DAMAGED", path + ": the header of the encrypted file is damaged");
  }
  if (version != kVersion) {
    return fail(Code::kFailedPrecondition, "ENCRYPTION_VERSION_UNSUPPORTED",
                path + " is encrypted in format version " + std::to_string(version) + "; start a newer program");
  }
  return header;
}

class EncryptedFile final : public File {
 public:
  EncryptedFile(std::unique_ptr<File> file, Header header, const SecretKey& key)
      : file_(std::move(file)), header_(std::move(header)), cipher_(key.derive(header_.salt, kPurpose)) {}

  Status write_header() { return file_->write_at(0, encode(header_)); }

  Status read_at(uint64_t offset, size_t size, std::string& out) override {
    out.clear();
    UCCP_TRY(const uint64_t end, this->size());
    if (offset >= end || size == 0) return {};
    const uint64_t last = std::min(end, offset + std::min<uint64_t>(size, end));
    const uint64_t first = down(offset, kUnit);
    UCCP_RETURN_IF_ERROR(read_units(first, up(last, kBlock) - first, out));
    out.resize(std::min<uint64_t>(out.size(), last - first));
    out.erase(0, std::min<uint64_t>(out.size(), offset - first));
    return {};
  }

  Status write_at(uint64_t offset, std::string_view data) override {
    if (data.empty()) return {};
    UCCP_TRY(const uint64_t before, size());
    const uint64_t end = offset + data.size();
    // From the beginning of the first unit, because a unit is encrypted from its beginning; to the end of the last
    // block.
    const uint64_t first = down(offset, kUnit);
    std::string plain;
    if (first < offset) UCCP_RETURN_IF_ERROR(read_units(first, up(offset, kBlock) - first, plain));
    plain.resize(offset - first);
    plain.append(data);
    if (const uint64_t rest = up(end, kBlock) - end; rest > 0) {
      std::string behind;
      if (before > end) UCCP_RETURN_IF_ERROR(read_at(end, rest, behind));
      behind.resize(rest);
      plain.append(behind);
    }
    cipher_.encrypt(first / kUnit, plain.data(), plain.size());
    UCCP_RETURN_IF_ERROR(file_->write_at(kHeaderBytes + first, plain));
    return end > before ? set_padding(end) : Status();
  }

  Status sync() override { return file_->sync(); }
  void start_writing(uint64_t offset, uint64_t size) override {
    file_->start_writing(kHeaderBytes + down(offset, kUnit), size + kUnit);
  }
  void prepare(uint64_t offset, uint64_t size) override {
    const uint64_t first = up(offset, kUnit);
    if (const uint64_t end = down(offset + size, kUnit); first < end) file_->prepare(kHeaderBytes + first, end - first);
  }

  Result<uint64_t> size() override {
    UCCP_TRY(const uint64_t whole, file_->size());
    // A block that was cut off cannot be read.
    const uint64_t content = whole < kHeaderBytes ? 0 : down(whole - kHeaderBytes, kBlock);
    return content < header_.padding ? 0 : content - header_.padding;
  }

  Status truncate(uint64_t size) override {
    UCCP_TRY(const uint64_t before, this->size());
    // What is cut off must not come back when the file grows again.
    if (size < before && size % kBlock != 0) {
      UCCP_RETURN_IF_ERROR(write_at(size, std::string(std::min(before, up(size, kBlock)) - size, '\0')));
    }
    UCCP_RETURN_IF_ERROR(file_->truncate(kHeaderBytes + up(size, kBlock)));
    return set_padding(size);
  }

  Status allocate(uint64_t size) override {
    UCCP_TRY(const uint64_t before, this->size());
    UCCP_RETURN_IF_ERROR(file_->allocate(kHeaderBytes + up(size, kBlock)));
    return size > before ? set_padding(size) : Status();
  }

 private:
  // Plain text of `size` bytes, whole blocks, from the unit at `first` on; fewer at the end of the file.
  Status read_units(uint64_t first, uint64_t size, std::string& out) {
    std::string cipher;
    UCCP_RETURN_IF_ERROR(file_->read_at(kHeaderBytes + first, size, cipher));
    cipher.resize(down(cipher.size(), kBlock));
    out = cipher;
    cipher_.decrypt(first / kUnit, out.data(), out.size());
    // A block that nothing was written to. An encrypted one is zero once in 2^128.
    static constexpr char kZeros[kBlock] = {};
    for (size_t at = 0; at < cipher.size(); at += kBlock) {
      if (cipher.compare(at, kBlock, kZeros, kBlock) == 0) out.replace(at, kBlock, kZeros, kBlock);
    }
    return {};
  }

  // The content now ends at `size`.
  Status set_padding(uint64_t size) {
    const auto padding = static_cast<uint8_t>(up(size, kBlock) - size);
    if (std::exchange(header_.padding, padding) == padding) return {};
    return write_header();
  }

  const std::unique_ptr<File> file_;
  Header header_;
  XtsCipher cipher_;
};

}  // namespace

Result<std::unique_ptr<File>> EncryptedFileSystem::open(const std::string& path, OpenMode mode) {
  UCCP_TRY(auto file, files_.open(path, mode));
  UCCP_TRY(const uint64_t size, file->size());
  if (mode == OpenMode::kCreate || (mode == OpenMode::kCreateOrOpen && size == 0)) {
    ByteWriter salt;
    for (size_t i = 0; i < kSaltBytes; i += 8) salt.u64(random_.next());
    const DataKey& key = keys_.newest();
    auto made = std::make_unique<EncryptedFile>(std::move(file), Header{key.id, salt.take(), 0}, key.key);
    UCCP_RETURN_IF_ERROR(made->write_header());
    return made;
  }
  std::string bytes;
  UCCP_RETURN_IF_ERROR(file->read_at(0, kHeaderUsedBytes, bytes));
  UCCP_TRY(auto header, decode(path, bytes));
  if (!header) return file;
  const DataKey* key = keys_.find(header->key_id);
  if (key == nullptr) {
    return fail(Code::kFailedPrecondition, "DATA_KEY_MISSING",
                path + " is encrypted with the data key " + to_hex(header->key_id) +
                    ", which keys/data.keys does not have; bring back the file that had it");
  }
  return std::make_unique<EncryptedFile>(std::move(file), std::move(*header), key->key);
}

}  // namespace uccp::storage
