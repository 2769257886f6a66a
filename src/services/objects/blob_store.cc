#include "services/objects/blob_store.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/hash.h"

namespace uccp::objects {
namespace {

constexpr size_t kReadBytes = 256u << 10;
// Writers at the same time; each holds one name in tmp.
constexpr int kWritersMax = 4096;

Status check_id(std::string_view sha256) {
  if (is_blob_id(sha256)) return {};
  return Status(
      Code::kInvalid, "BLOB_ID_INVALID",
      "a blob is named by 64 lower-case hexadecimal digits, not by \"" + std::string(sha256.substr(0, 80)) + "\"");
}

}  // namespace

bool is_blob_id(std::string_view text) {
  return text.size() == 64 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<BlobInfo> BlobStore::put(std::string_view content) {
  UCCP_TRY(auto writer, begin_put());
  UCCP_RETURN_IF_ERROR(writer->append(content));
  return writer->finish();
}

class DirectoryBlobStore::Writer final : public BlobWriter {
 public:
  Writer(DirectoryBlobStore& store, std::string path, std::unique_ptr<File> file)
      : store_(store), path_(std::move(path)), file_(std::move(file)) {}

  ~Writer() override {
    file_.reset();
    // What cannot be removed now is removed when the store is opened next.
    if (!path_.empty()) (void)store_.files_.remove(path_);
  }

  Status append(std::string_view data) override {
    UCCP_RETURN_IF_ERROR(file_->write_at(size_, data));
    hash_.update(data);
    size_ += data.size();
    return {};
  }

  Result<BlobInfo> finish(std::string_view expected_sha256) override {
    BlobInfo info{to_hex(hash_.finish()), size_};
    if (!expected_sha256.empty() && info.sha256 != expected_sha256) {
      return fail(Code::kCorruption, "BLOB_DIGEST_MISMATCH",
                  "the content has digest " + info.sha256 + ", announced was " + std::string(expected_sha256));
    }
    if (store_.options_.sync) UCCP_RETURN_IF_ERROR(file_->sync());
    file_.reset();
    UCCP_RETURN_IF_ERROR(store_.make_parent(info.sha256));
    const std::string target = store_.path_of(info.sha256);
    // Over an existing blob too: the content is the same, and if that one is damaged this mends it.
    UCCP_RETURN_IF_ERROR(store_.files_.rename(path_, target));
    path_.clear();
    if (store_.options_.sync) UCCP_RETURN_IF_ERROR(store_.files_.sync_directory(target.substr(0, target.rfind('/'))));
    return info;
  }

 private:
  DirectoryBlobStore& store_;
  std::string path_;
  std::unique_ptr<File> file_;
  Sha256 hash_;
  uint64_t size_ = 0;
};

DirectoryBlobStore::DirectoryBlobStore(FileSystem& files, std::string directory, DirectoryBlobStoreOptions options)
    : files_(files), directory_(std::move(directory)), options_(options) {}

Result<std::unique_ptr<DirectoryBlobStore>> DirectoryBlobStore::open(FileSystem& files, std::string directory,
                                                                     DirectoryBlobStoreOptions options) {
  const std::string temporary = directory + "/tmp";
  UCCP_RETURN_IF_ERROR(files.make_directories(temporary));
  UCCP_TRY(auto names, files.list(temporary));
  for (const std::string& name : names) UCCP_RETURN_IF_ERROR(files.remove(temporary + "/" + name));
  if (options.sync) UCCP_RETURN_IF_ERROR(files.sync_directory(directory));
  return std::unique_ptr<DirectoryBlobStore>(new DirectoryBlobStore(files, std::move(directory), options));
}

std::string DirectoryBlobStore::path_of(std::string_view sha256) const {
  std::string path = directory_;
  path.append("/").append(sha256.substr(0, 2)).append("/").append(sha256.substr(2, 2)).append("/").append(sha256);
  return path;
}

Status DirectoryBlobStore::make_parent(std::string_view sha256) {
  const std::string first = directory_ + "/" + std::string(sha256.substr(0, 2));
  const std::string second = first + "/" + std::string(sha256.substr(2, 2));
  UCCP_TRY(bool exists, files_.exists(second));
  if (!exists) UCCP_RETURN_IF_ERROR(files_.make_directories(second));
  // Existing ones too: the writer that made them may not have come to its sync yet. It costs little when all is clean.
  if (options_.sync) {
    UCCP_RETURN_IF_ERROR(files_.sync_directory(first));
    UCCP_RETURN_IF_ERROR(files_.sync_directory(directory_));
  }
  return {};
}

Result<std::unique_ptr<BlobWriter>> DirectoryBlobStore::begin_put() {
  // The first free name: exclusive creation decides between writers, so that no counter has to be shared by threads.
  for (int number = 0; number < kWritersMax; ++number) {
    std::string path = directory_ + "/tmp/put-" + std::to_string(number);
    auto file = files_.open(path, OpenMode::kCreate);
    if (file) return std::make_unique<Writer>(*this, std::move(path), std::move(*file));
    if (file.error().code() != Code::kAlreadyExists) return fail(std::move(file.error()));
  }
  return fail(Code::kExhausted, "BLOB_WRITERS_EXHAUSTED",
              std::to_string(kWritersMax) + " blobs are being written to " + directory_ + " already; retry later");
}

Result<std::unique_ptr<File>> DirectoryBlobStore::open_blob(std::string_view sha256) {
  UCCP_RETURN_IF_ERROR(check_id(sha256));
  auto file = files_.open(path_of(sha256), OpenMode::kRead);
  if (!file && file.error().code() == Code::kNotFound) {
    return fail(Code::kNotFound, "BLOB_NOT_FOUND", "no blob " + std::string(sha256) + " is stored here");
  }
  return file;
}

Result<BlobInfo> DirectoryBlobStore::stat(std::string_view sha256) {
  UCCP_TRY(auto file, open_blob(sha256));
  UCCP_TRY(uint64_t size, file->size());
  return BlobInfo{std::string(sha256), size};
}

Result<std::string> DirectoryBlobStore::read(std::string_view sha256, uint64_t offset, size_t size) {
  UCCP_TRY(auto file, open_blob(sha256));
  UCCP_TRY(uint64_t total, file->size());
  if (offset > total) {
    return fail(Code::kInvalid, "BLOB_OFFSET_INVALID",
                "offset " + std::to_string(offset) + " is behind the end of blob " + std::string(sha256) + " with " +
                    std::to_string(total) + " bytes");
  }
  std::string out;
  UCCP_RETURN_IF_ERROR(file->read_at(offset, std::min<uint64_t>(size, total - offset), out));
  return out;
}

Result<bool> DirectoryBlobStore::exists(std::string_view sha256) {
  UCCP_RETURN_IF_ERROR(check_id(sha256));
  return files_.exists(path_of(sha256));
}

Status DirectoryBlobStore::remove(std::string_view sha256) {
  UCCP_RETURN_IF_ERROR(check_id(sha256));
  return files_.remove(path_of(sha256));
}

Result<std::vector<std::string>> DirectoryBlobStore::list(std::string_view after, size_t count_max) {
  std::vector<std::string> ids;
  UCCP_TRY(auto firsts, files_.list(directory_));
  for (const std::string& first : firsts) {
    if (first.size() != 2 || first < after.substr(0, 2)) continue;
    UCCP_TRY(auto seconds, files_.list(directory_ + "/" + first));
    for (const std::string& second : seconds) {
      if (first + second < after.substr(0, 4)) continue;
      UCCP_TRY(auto names, files_.list(directory_ + "/" + first + "/" + second));
      for (std::string& name : names) {
        if (!is_blob_id(name) || name <= after) continue;
        if (ids.size() == count_max) return ids;
        ids.push_back(std::move(name));
      }
    }
  }
  return ids;
}

Status DirectoryBlobStore::verify(std::string_view sha256) {
  UCCP_TRY(auto file, open_blob(sha256));
  UCCP_TRY(uint64_t size, file->size());
  Sha256 hash;
  std::string piece;
  for (uint64_t offset = 0; offset < size; offset += piece.size()) {
    UCCP_RETURN_IF_ERROR(file->read_at(offset, kReadBytes, piece));
    if (piece.empty()) break;
    hash.update(piece);
  }
  const std::string found = to_hex(hash.finish());
  if (found == sha256) return {};
  return Status(Code::kCorruption, "BLOB_DIGEST_MISMATCH",
                "blob " + std::string(sha256) + " is damaged: its stored bytes have digest " + found);
}

}  // namespace uccp::objects
