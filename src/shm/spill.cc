#include "shm/spill.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"

namespace uccp::shm {
namespace {

constexpr std::string_view kMagic = "UCCPSPL";
constexpr uint8_t kVersion = 1;
constexpr size_t kHeadBytes = 8;
constexpr size_t kRecordHeadBytes = 16 + 8 + 4 + 4;
constexpr std::string_view kSuffix = ".spill";
constexpr size_t kReadBytes = 4u << 20;

std::string_view view(const ObjectId& id) { return {reinterpret_cast<const char*>(id.data()), id.size()}; }

std::string record_head(const ObjectId& id, uint64_t size, uint32_t checksum) {
  const std::string head = ByteWriter().raw(view(id)).u64(size).u32(checksum).take();
  return ByteWriter().raw(head).u32(crc32c(head)).take();
}

}  // namespace

Result<Spill> Spill::open(FileSystem& files, std::string directory, uint64_t bytes_max) {
  UCCP_RETURN_IF_ERROR(files.make_directories(directory));
  UCCP_TRY(const auto names, files.list(directory));
  for (const std::string& name : names) {
    if (name.ends_with(kSuffix)) UCCP_RETURN_IF_ERROR(files.remove(directory + "/" + name));
  }
  return Spill(files, std::move(directory), bytes_max);
}

std::string Spill::path_of(uint64_t file) const {
  return directory_ + "/" + std::to_string(file) + std::string(kSuffix);
}

Result<std::vector<SpillPlace>> Spill::write(std::span<const SpillObject> objects) {
  uint64_t total = kHeadBytes;
  for (const SpillObject& one : objects) total += kRecordHeadBytes + one.content.size();
  if (bytes_ + total > bytes_max_) {
    return fail(Code::kExhausted, "SPILL_FULL",
                std::to_string(total) + " bytes of objects do not fit on the disk: " + std::to_string(bytes_) + " of " +
                    std::to_string(bytes_max_) + " bytes are used; see --objects-disk");
  }
  const uint64_t number = next_file_++;
  const std::string path = path_of(number);
  std::vector<SpillPlace> places;
  const auto write_all = [&]() -> Status {
    UCCP_TRY(const auto file, files_->open(path, OpenMode::kCreate));
    UCCP_RETURN_IF_ERROR(file->write_at(0, ByteWriter().raw(kMagic).u8(kVersion).data()));
    uint64_t at = kHeadBytes;
    for (const SpillObject& one : objects) {
      const uint32_t checksum = crc32c(one.content);
      UCCP_RETURN_IF_ERROR(file->write_at(at, record_head(one.id, one.content.size(), checksum)));
      at += kRecordHeadBytes;
      UCCP_RETURN_IF_ERROR(file->write_at(at, one.content));
      places.push_back({.file = number, .offset = at, .size = one.content.size(), .checksum = checksum});
      at += one.content.size();
    }
    return {};
  };
  if (Status status = write_all(); !status.is_ok()) {
    (void)files_->remove(path);
    return std::unexpected(status);
  }
  kept_.emplace(number, Kept{.bytes = total, .objects = objects.size()});
  bytes_ += total;
  return places;
}

Status Spill::read(const SpillPlace& place, const ObjectId& id, std::span<char> out) {
  const std::string path = path_of(place.file);
  const auto damaged = [&](const std::string& what) {
    return Status(Code::kCorruption, "SPILL_DAMAGED", path + " is damaged: " + what);
  };
  auto file = files_->open(path, OpenMode::kRead);
  if (!file) return file.error();
  std::string piece;
  UCCP_RETURN_IF_ERROR((*file)->read_at(0, kHeadBytes, piece));
  if (piece != ByteWriter().raw(kMagic).u8(kVersion).data()) return damaged("it has no header of version 1");
  UCCP_RETURN_IF_ERROR((*file)->read_at(place.offset - kRecordHeadBytes, kRecordHeadBytes, piece));
  if (piece != record_head(id, place.size, place.checksum)) return damaged("the head of the object is another one");
  uint32_t checksum = 0;
  for (uint64_t at = 0; at < place.size;) {
    UCCP_RETURN_IF_ERROR((*file)->read_at(place.offset + at, std::min<uint64_t>(kReadBytes, place.size - at), piece));
    if (piece.empty()) return damaged("it ends inside of the object");
    checksum = crc32c(piece, checksum);
    std::ranges::copy(piece, out.begin() + static_cast<std::ptrdiff_t>(at));
    at += piece.size();
  }
  if (checksum != place.checksum) return damaged("the checksum of the object is wrong");
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
