#include "shm/spill.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"

namespace uccp::shm {
namespace {

constexpr std::string_view kMagic = "UCCPSPL";
constexpr uint8_t kVersion = 2;
constexpr size_t kHeadBytes = 8;
constexpr size_t kRecordHeadBytes = 16 + 8 + 8 + 4;
constexpr size_t kLengthBytes = 4;  // of a piece
constexpr std::string_view kSuffix = ".spill";

std::string_view view(const ObjectId& id) { return {reinterpret_cast<const char*>(id.data()), id.size()}; }

std::string record_head(const ObjectId& id, uint64_t size, uint64_t stored) {
  const std::string head = ByteWriter().raw(view(id)).u64(size).u64(stored).take();
  return ByteWriter().raw(head).u32(crc32c(head)).take();
}

}  // namespace

Result<Spill> Spill::open(FileSystem& files, std::string directory, uint64_t bytes_max, Pieces pieces) {
  UCCP_RETURN_IF_ERROR(files.make_directories(directory));
  UCCP_TRY(const auto names, files.list(directory));
  for (const std::string& name : names) {
    if (name.ends_with(kSuffix)) UCCP_RETURN_IF_ERROR(files.remove(directory + "/" + name));
  }
  return Spill(files, std::move(directory), bytes_max, std::move(pieces));
}

std::string Spill::path_of(uint64_t file) const {
  return directory_ + "/" + std::to_string(file) + std::string(kSuffix);
}

// Writes the pieces of an object and, in front of them, its head; answers how many bytes its pieces have.
Result<uint64_t> Spill::write_one(File& file, uint64_t at, const SpillObject& object) {
  const uint64_t begin = at + kRecordHeadBytes;
  uint64_t stored = 0;
  for (uint32_t index = 0; index < pieces_of(object.content.size()); ++index) {
    const std::string piece = pieces_.seal(object.id, index, object.content.substr(index * kPieceBytes, kPieceBytes));
    UCCP_RETURN_IF_ERROR(
        file.write_at(begin + stored, ByteWriter().u32(static_cast<uint32_t>(piece.size())).raw(piece).data()));
    stored += kLengthBytes + piece.size();
  }
  UCCP_RETURN_IF_ERROR(file.write_at(at, record_head(object.id, object.content.size(), stored)));
  return stored;
}

Result<std::vector<SpillPlace>> Spill::write(std::span<const SpillObject> objects) {
  uint64_t most = kHeadBytes;  // if nothing gets smaller
  for (const SpillObject& one : objects)
    most += kRecordHeadBytes + one.content.size() + pieces_of(one.content.size()) * (kLengthBytes + kPieceExtraBytes);
  if (bytes_ + most > bytes_max_) {
    return fail(Code::kExhausted, "SPILL_FULL",
                std::to_string(most) + " bytes of objects do not fit on the disk: " + std::to_string(bytes_) + " of " +
                    std::to_string(bytes_max_) + " bytes are used; see --objects-disk");
  }
  const uint64_t number = next_file_++;
  const std::string path = path_of(number);
  std::vector<SpillPlace> places;
  uint64_t at = kHeadBytes;
  const auto write_all = [&]() -> Status {
    UCCP_TRY(const auto file, files_->open(path, OpenMode::kCreate));
    UCCP_RETURN_IF_ERROR(file->write_at(0, ByteWriter().raw(kMagic).u8(kVersion).data()));
    for (const SpillObject& one : objects) {
      UCCP_TRY(const uint64_t stored, write_one(*file, at, one));
      at += kRecordHeadBytes;
      places.push_back({.file = number, .offset = at, .size = one.content.size(), .stored = stored});
      at += stored;
    }
    return {};
  };
  if (Status status = write_all(); !status.is_ok()) {
    (void)files_->remove(path);
    return std::unexpected(status);
  }
  kept_.emplace(number, Kept{.bytes = at, .objects = objects.size()});
  bytes_ += at;
  return places;
}

Status Spill::read(const SpillPlace& place, const ObjectId& id, std::span<char> out) const {
  return read(
      place, id, [&](uint64_t begin, size_t size) { return out.subspan(begin, size); },
      [](uint32_t, std::string_view) { return Status(); });
}

Status Spill::read_pieces(const SpillPlace& place, const ObjectId& id, const TakePiece& take) const {
  std::string content;
  return read(
      place, id,
      [&](uint64_t, size_t size) {
        content.resize(size);
        return std::span(content);
      },
      take);
}

Status Spill::read(const SpillPlace& place, const ObjectId& id, const Where& where, const TakePiece& take) const {
  const std::string path = path_of(place.file);
  const auto damaged = [&](const std::string& what) {
    return Status(Code::kCorruption, "SPILL_DAMAGED", path + " is damaged: " + what);
  };
  auto file = files_->open(path, OpenMode::kRead);
  if (!file) return file.error();
  std::string bytes;
  UCCP_RETURN_IF_ERROR((*file)->read_at(0, kHeadBytes, bytes));
  if (bytes != ByteWriter().raw(kMagic).u8(kVersion).data()) return damaged("it has no header of version 2");
  UCCP_RETURN_IF_ERROR((*file)->read_at(place.offset - kRecordHeadBytes, kRecordHeadBytes, bytes));
  if (bytes != record_head(id, place.size, place.stored)) return damaged("the head of the object is another one");
  uint64_t at = 0;
  for (uint32_t index = 0; index < pieces_of(place.size); ++index) {
    UCCP_RETURN_IF_ERROR((*file)->read_at(place.offset + at, kLengthBytes, bytes));
    const uint64_t length = ByteReader(bytes).u32();
    at += kLengthBytes;
    if (bytes.size() != kLengthBytes || length > place.stored - std::min(at, place.stored))
      return damaged("it ends inside of the object");
    UCCP_RETURN_IF_ERROR((*file)->read_at(place.offset + at, length, bytes));
    at += length;
    const uint64_t begin = uint64_t{index} * kPieceBytes;
    const std::span<char> part = where(begin, std::min<uint64_t>(kPieceBytes, place.size - begin));
    if (Status status = pieces_.open(id, index, bytes, part); !status.is_ok())
      return damaged(std::string(status.message()));
    UCCP_RETURN_IF_ERROR(take(index, {part.data(), part.size()}));
  }
  return {};
}

void Spill::drop(const SpillPlace& place) {
  const auto found = kept_.find(place.file);
  if (found == kept_.end() || --found->second.objects > 0) return;
  bytes_ -= found->second.bytes;
  kept_.erase(found);
  if (Status status = files_->remove(path_of(place.file)); !status.is_ok()) {
    log::warn("a file of spilled objects stays", {{"file", path_of(place.file)}, {"error", status.message()}});
  }
}

}  // namespace uccp::shm
