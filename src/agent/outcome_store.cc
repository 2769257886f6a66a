#include "agent/outcome_store.h"

#include "base/bytes.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr std::string_view kMagic{"UCCPOUT\x01", 8};
constexpr uint64_t kFileBytesMax = 8u << 20;
constexpr std::string_view kSuffix = ".outcome";

std::string encode(const StoredOutcome& stored) {
  ByteWriter body;
  body.bytes(stored.outcome.SerializeAsString()).varint(stored.uploads.size());
  for (const BlobSource& upload : stored.uploads) body.bytes(upload.sha256).u64(upload.size).bytes(upload.path);
  ByteWriter file;
  file.raw(kMagic).u32(crc32c(body.data())).raw(body.data());
  return file.take();
}

Result<StoredOutcome> decode(std::string_view data, const std::string& path) {
  const auto damaged = [&] {
    return fail(Code::kCorruption, "OUTCOME_INVALID", path + " is no stored outcome, or damaged");
  };
  ByteReader reader(data);
  if (reader.raw(kMagic.size()) != kMagic) return damaged();
  const uint32_t crc = reader.u32();
  if (!reader.ok() || crc != crc32c(data.substr(kMagic.size() + 4))) return damaged();
  StoredOutcome stored;
  if (!stored.outcome.ParseFromString(std::string(reader.bytes()))) return damaged();
  for (uint64_t left = reader.varint(); left > 0 && reader.ok(); --left) {
    BlobSource upload;
    upload.sha256 = reader.bytes();
    upload.size = reader.u64();
    upload.path = reader.bytes();
    stored.uploads.push_back(std::move(upload));
  }
  if (!reader.at_end()) return damaged();
  return stored;
}

}  // namespace

Result<OutcomeStore> OutcomeStore::open(FileSystem& files, std::string directory) {
  UCCP_RETURN_IF_ERROR(files.make_directories(directory));
  return OutcomeStore(files, std::move(directory));
}

Status OutcomeStore::put(const std::string& key, StoredOutcome& stored) {
  size_t number = 0;
  for (BlobSource& upload : stored.uploads) {
    const std::string path = directory_ + "/" + key + "." + std::to_string(number++);
    if (upload.path.starts_with(directory_ + "/")) continue;
    if (upload.path.empty()) {
      UCCP_RETURN_IF_ERROR(write_file_atomically(*files_, path, upload.data));
      upload.data.clear();
    } else {
      UCCP_TRY(auto file, files_->open(upload.path, OpenMode::kReadWrite));
      UCCP_RETURN_IF_ERROR(file->sync());
      UCCP_RETURN_IF_ERROR(files_->rename(upload.path, path));
    }
    upload.path = path;
  }
  return write_file_atomically(*files_, directory_ + "/" + key + std::string(kSuffix), encode(stored));
}

Status OutcomeStore::remove(const std::string& key, const std::vector<BlobSource>& uploads) {
  UCCP_RETURN_IF_ERROR(files_->remove(directory_ + "/" + key + std::string(kSuffix)));
  for (const BlobSource& upload : uploads) {
    if (upload.path.starts_with(directory_ + "/")) UCCP_RETURN_IF_ERROR(files_->remove(upload.path));
  }
  return {};
}

std::vector<StoredOutcome> OutcomeStore::load() {
  std::vector<StoredOutcome> all;
  const auto names = files_->list(directory_);
  if (!names) return all;
  for (const std::string& name : *names) {
    if (!name.ends_with(kSuffix)) continue;
    const std::string path = directory_ + "/" + name;
    const auto data = read_file(*files_, path, kFileBytesMax);
    auto stored = data ? decode(*data, path) : Result<StoredOutcome>(fail(data.error()));
    if (stored) {
      all.push_back(std::move(*stored));
    } else {
      log::error("an outcome cannot be read and is set aside", {{"error", stored.error().message()}});
      (void)files_->rename(path, path + ".damaged");
    }
  }
  return all;
}

}  // namespace uccp::agent
