#include "services/backup/sealed_file.h"

#include "base/bytes.h"
#include "base/check.h"

namespace uccp::backup {
namespace {

constexpr std::string_view kMagic = "UCCPBAK\n";
constexpr uint32_t kVersion = 1;
constexpr size_t kSaltBytes = 32;
constexpr size_t kKeyIdBytes = 8;
constexpr size_t kHeaderBytes = 8 + 4 + 1 + kKeyIdBytes + kSaltBytes + 4;
constexpr std::string_view kPurpose = "uccp backup file";
// In the length of the last piece.
constexpr uint32_t kLastFlag = 0x80000000;

SecretKey file_key(const SecretKey& key, std::string_view salt) { return key.derive(salt, kPurpose); }

// A piece opens only behind this header and with this length.
std::string bound_to(std::string_view header) { return sha256(header); }
std::string bound_with(const std::string& bound, uint32_t length) { return ByteWriter().raw(bound).u32(length).take(); }

Status damaged(const std::string& path, uint64_t offset, std::string_view what) {
  return Status(
      Code::kCorruption, "BACKUP_DAMAGED",
      path + " is damaged at byte " + std::to_string(offset) + ": " + std::string(what) + "; use another backup");
}

}  // namespace

Result<std::unique_ptr<SealedWriter>> SealedWriter::create(FileSystem& files, const std::string& path, SealedKind kind,
                                                           const SecretKey& key, Random& random) {
  UCCP_TRY(auto file, files.open(path, OpenMode::kCreate));
  ByteWriter salt;
  for (size_t i = 0; i < kSaltBytes; i += 8) salt.u64(random.next());
  ByteWriter header;
  header.raw(kMagic).u32(kVersion).u8(static_cast<uint8_t>(kind)).raw(key.id()).raw(salt.data());
  header.u32(crc32c(header.data()));
  std::unique_ptr<SealedWriter> writer(
      new SealedWriter(std::move(file), bound_to(header.data()), file_key(key, salt.data())));
  UCCP_RETURN_IF_ERROR(writer->write(header.data()));
  return writer;
}

Status SealedWriter::write(std::string_view bytes) {
  UCCP_RETURN_IF_ERROR(file_->write_at(size_, bytes));
  hash_.update(bytes);
  size_ += bytes.size();
  return {};
}

Status SealedWriter::write_piece(std::string_view piece, bool last) {
  UCCP_CHECK(piece.size() <= kPieceBytesMax, "a piece of a backup has a bounded size");
  const uint32_t length = static_cast<uint32_t>(piece.size() + Aead::kTagBytes) | (last ? kLastFlag : 0);
  return write(ByteWriter().u32(length).raw(aead_.seal(number_++, bound_with(bound_, length), piece)).data());
}

Status SealedWriter::add(std::string_view piece) { return write_piece(piece, false); }

Result<FileSum> SealedWriter::finish() {
  UCCP_RETURN_IF_ERROR(write_piece("", true));
  UCCP_RETURN_IF_ERROR(file_->sync());
  return FileSum{size_, to_hex(hash_.finish())};
}

Result<std::unique_ptr<SealedReader>> SealedReader::open(FileSystem& files, const std::string& path, SealedKind kind,
                                                         const SecretKey& key) {
  UCCP_TRY(auto file, files.open(path, OpenMode::kRead));
  std::string header;
  UCCP_RETURN_IF_ERROR(file->read_at(0, kHeaderBytes, header));
  ByteReader in(header);
  const bool known = in.raw(kMagic.size()) == kMagic;
  const uint32_t version = in.u32();
  const uint8_t kind_found = in.u8();
  const std::string_view key_id = in.raw(kKeyIdBytes);
  const std::string_view salt = in.raw(kSaltBytes);
  const bool intact = in.u32() == crc32c(std::string_view(header).substr(0, header.size() < 4 ? 0 : header.size() - 4));
  if (!known || !in.ok() || !intact)
    return fail(damaged(path, 0, "it is no file of a backup, or its header is changed"));
  if (version != kVersion) {
    return fail(Code::kFailedPrecondition, "BACKUP_VERSION_UNSUPPORTED",
                path + " has format version " + std::to_string(version) + "; this program reads " +
                    std::to_string(kVersion) + ". Use a newer program");
  }
  if (key_id != key.id()) {
    return fail(Code::kFailedPrecondition, "BACKUP_KEY_WRONG",
                path + " was encrypted with the key " + to_hex(key_id) + " and the key given is " + to_hex(key.id()) +
                    "; set backup_key_file to the file that holds the former");
  }
  if (kind_found != static_cast<uint8_t>(kind)) return fail(damaged(path, 12, "it is another file under this name"));
  std::unique_ptr<SealedReader> reader(new SealedReader(path, std::move(file), bound_to(header), file_key(key, salt)));
  reader->offset_ = header.size();
  reader->hash_.update(header);
  return reader;
}

Result<std::optional<std::string>> SealedReader::next() {
  if (ended_) return std::nullopt;
  std::string head;
  UCCP_RETURN_IF_ERROR(file_->read_at(offset_, sizeof(uint32_t), head));
  ByteReader in(head);
  const uint32_t length = in.u32();
  if (!in.ok()) return fail(damaged(path_, offset_, "it is cut off"));
  const uint32_t size = length & ~kLastFlag;
  if (size < Aead::kTagBytes || size > kPieceBytesMax + Aead::kTagBytes) {
    return fail(damaged(path_, offset_, "a length is wrong"));
  }
  UCCP_TRY(const uint64_t file_size, file_->size());
  if (file_size - offset_ - head.size() < size) return fail(damaged(path_, offset_, "it is cut off"));
  std::string sealed;
  UCCP_RETURN_IF_ERROR(file_->read_at(offset_ + head.size(), size, sealed));
  auto piece = aead_.open(number_, bound_with(bound_, length), sealed);
  if (!piece) return fail(damaged(path_, offset_, "a piece is not what was written there"));
  hash_.update(head);
  hash_.update(sealed);
  offset_ += head.size() + sealed.size();
  ++number_;
  if ((length & kLastFlag) == 0) return std::move(*piece);
  ended_ = true;
  if (!piece->empty()) return fail(damaged(path_, offset_, "its end holds something"));
  if (file_size != offset_) return fail(damaged(path_, offset_, "something follows its end"));
  return std::nullopt;
}

FileSum SealedReader::sum() { return {offset_, to_hex(hash_.finish())}; }

}  // namespace uccp::backup
