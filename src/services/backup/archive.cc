#include "services/backup/archive.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/log.h"

namespace uccp::backup {
namespace {

constexpr std::string_view kUnfinished = ".unfinished-";
constexpr std::string_view kManifestFile = "manifest";
constexpr std::string_view kBlobFolder = "blobs";
constexpr size_t kBlobPieceBytes = 256u << 10;
constexpr size_t kBlobsListed = 1000;

std::string blob_file(const std::string& folder, const std::string& sha256) {
  return folder + "/" + std::string(kBlobFolder) + "/" + sha256;
}

Status stopped() { return Status(Code::kCancelled, "BACKUP_STOPPED", "it was stopped before its end"); }

Status damaged(const std::string& path, const std::string& what) {
  return Status(Code::kCorruption, "BACKUP_DAMAGED", path + ": " + what + "; use another backup");
}

}  // namespace

Result<Manifest> Archive::read(const std::string& id) {
  const auto missing = [&] {
    return fail(Status(Code::kNotFound, "BACKUP_NOT_FOUND", "there is no backup '" + id + "' in " + directory_)
                    .with_resource("backup", id));
  };
  if (!is_backup_id(id)) return missing();
  const std::string path = path_of(id) + "/" + std::string(kManifestFile);
  UCCP_TRY(const bool exists, files_.exists(path));
  if (!exists) return missing();
  UCCP_TRY(auto reader, SealedReader::open(files_, path, SealedKind::kManifest, key_));
  UCCP_TRY(const auto bytes, reader->next());
  UCCP_TRY(Manifest manifest, decode_manifest(bytes.value_or("")));
  UCCP_TRY(const auto more, reader->next());
  if (more || manifest.id != id) return fail(damaged(path, "it is the manifest of another backup"));
  return manifest;
}

Result<std::vector<Manifest>> Archive::list() {
  std::vector<Manifest> manifests;
  UCCP_TRY(const bool exists, files_.exists(directory_));
  if (!exists) return manifests;
  UCCP_TRY(const auto names, files_.list(directory_));
  for (const std::string& name : names) {
    if (!is_backup_id(name)) continue;
    auto manifest = read(name);
    if (manifest) {
      manifests.push_back(std::move(*manifest));
    } else if (manifest.error().code() != Code::kNotFound) {
      log::warn("a backup cannot be read", {{"id", name}, {"error", manifest.error().to_string()}});
    }
  }
  std::ranges::sort(manifests, std::greater(), [](const Manifest& m) { return std::pair(m.created_us, m.id); });
  return manifests;
}

Result<std::unique_ptr<SealedReader>> Archive::open_group(const Manifest& manifest, const GroupPart& part) {
  return SealedReader::open(files_, path_of(manifest.id) + "/" + part.file, SealedKind::kGroup, key_);
}

Status Archive::verify_group(const Manifest& manifest, const GroupPart& part, const Progress& progress,
                             uint64_t& done) {
  UCCP_TRY(auto reader, open_group(manifest, part));
  machine::SnapshotCheck check(part.group);
  while (true) {
    UCCP_TRY(const auto chunk, reader->next());
    if (!chunk) break;
    UCCP_RETURN_IF_ERROR(check.add(*chunk));
    if (!progress(done + chunk->size())) return stopped();
  }
  const std::string path = path_of(manifest.id) + "/" + part.file;
  if (reader->sum() != part.sum) return damaged(path, "it is not the file that the manifest names");
  if (!check.complete() || check.header().position != part.position || check.header().digest != part.digest) {
    return damaged(path, "it does not hold the state that the manifest names");
  }
  done += part.sum.size;
  return {};
}

Status Archive::read_blob(const Manifest& manifest, const BlobPart& part,
                          const std::function<Status(std::string_view)>& take) {
  const std::string path = blob_file(path_of(manifest.id), part.sha256);
  UCCP_TRY(auto reader, SealedReader::open(files_, path, SealedKind::kBlob, key_));
  Sha256 hash;
  while (true) {
    UCCP_TRY(const auto piece, reader->next());
    if (!piece) break;
    hash.update(*piece);
    UCCP_RETURN_IF_ERROR(take(*piece));
  }
  if (to_hex(hash.finish()) != part.sha256) return damaged(path, "its content is not that of its name");
  return {};
}

Status Archive::verify(const Manifest& manifest, const Progress& progress) {
  uint64_t done = 0;
  for (const GroupPart& part : manifest.groups) UCCP_RETURN_IF_ERROR(verify_group(manifest, part, progress, done));
  for (const BlobPart& part : manifest.blobs) {
    UCCP_RETURN_IF_ERROR(read_blob(manifest, part, [](std::string_view) { return Status(); }));
    done += part.file_size;
    if (!progress(done)) return stopped();
  }
  return {};
}

Status Archive::restore_blobs(const Manifest& manifest, objects::BlobStore& store, const Progress& progress) {
  uint64_t done = 0;
  for (const BlobPart& part : manifest.blobs) {
    done += part.file_size;
    if (!progress(done)) return stopped();
    UCCP_TRY(const bool exists, store.exists(part.sha256));
    if (exists) continue;
    UCCP_TRY(auto writer, store.begin_put());
    UCCP_RETURN_IF_ERROR(read_blob(manifest, part, [&](std::string_view piece) { return writer->append(piece); }));
    UCCP_TRY(const auto info, writer->finish(part.sha256));
    (void)info;
  }
  return {};
}

Status Archive::remove_folder(const std::string& path) {
  for (const std::string& inside : {path + "/" + std::string(kBlobFolder), path}) {
    UCCP_TRY(const bool exists, files_.exists(inside));
    if (!exists) continue;
    UCCP_TRY(const auto names, files_.list(inside));
    for (const std::string& name : names) UCCP_RETURN_IF_ERROR(files_.remove(inside + "/" + name));
    UCCP_RETURN_IF_ERROR(files_.remove(inside));
  }
  return {};
}

Status Archive::remove(const std::string& id) {
  // Renamed first: what is half removed is no backup.
  const std::string leaving = directory_ + "/" + std::string(kUnfinished) + id;
  UCCP_RETURN_IF_ERROR(files_.rename(path_of(id), leaving));
  UCCP_RETURN_IF_ERROR(files_.sync_directory(directory_));
  return remove_folder(leaving);
}

Status Archive::remove_unfinished() {
  UCCP_TRY(const bool exists, files_.exists(directory_));
  if (!exists) return {};
  UCCP_TRY(const auto names, files_.list(directory_));
  for (const std::string& name : names) {
    if (name.starts_with(kUnfinished)) UCCP_RETURN_IF_ERROR(remove_folder(directory_ + "/" + name));
  }
  return {};
}

ArchiveWriter::ArchiveWriter(Archive& archive, std::string id)
    : archive_(archive), id_(std::move(id)), folder_(archive.directory_ + "/" + std::string(kUnfinished) + id_) {}

Result<std::unique_ptr<ArchiveWriter>> ArchiveWriter::begin(Archive& archive, const std::string& id) {
  std::unique_ptr<ArchiveWriter> writer(new ArchiveWriter(archive, id));
  UCCP_RETURN_IF_ERROR(archive.files_.make_directories(writer->folder_ + "/" + std::string(kBlobFolder)));
  UCCP_TRY(const auto earlier, archive.list());
  for (const Manifest& manifest : earlier) {
    for (const BlobPart& part : manifest.blobs) {
      writer->earlier_.try_emplace(part.sha256, blob_file(archive.path_of(manifest.id), part.sha256), part);
    }
  }
  return writer;
}

Status ArchiveWriter::add_group(const std::string& name, machine::SnapshotReader reader, const Progress& progress) {
  const machine::SnapshotHeader header = reader.header();
  GroupPart part{.group = header.group,
                 .name = name,
                 .position = header.position,
                 .digest = header.digest,
                 .file = "group-" + name};
  UCCP_TRY(auto file, SealedWriter::create(archive_.files_, folder_ + "/" + part.file, SealedKind::kGroup,
                                           archive_.key_, archive_.random_));
  while (!reader.done()) {
    const std::string chunk = reader.next();
    UCCP_RETURN_IF_ERROR(file->add(chunk));
    bytes_ += chunk.size();
    if (!progress(bytes_)) return stopped();
  }
  UCCP_TRY(part.sum, file->finish());
  groups_.push_back(std::move(part));
  return {};
}

// False if no earlier backup has it, or its file system cannot link.
Result<bool> ArchiveWriter::link_blob(const BlobPart& part) {
  const auto& [file, known] = earlier_.at(part.sha256);
  const Status linked = archive_.files_.hard_link(file, blob_file(folder_, part.sha256));
  if (linked.is_ok()) return true;
  return linked.code() == Code::kExhausted ? Result<bool>(std::unexpected(linked)) : Result<bool>(false);
}

Result<BlobPart> ArchiveWriter::add_blob(objects::BlobStore& store, const std::string& sha256) {
  if (const auto known = earlier_.find(sha256); known != earlier_.end()) {
    UCCP_TRY(const bool linked, link_blob(known->second.second));
    if (linked) return known->second.second;
  }
  UCCP_TRY(const auto info, store.stat(sha256));
  UCCP_TRY(auto file, SealedWriter::create(archive_.files_, blob_file(folder_, sha256), SealedKind::kBlob,
                                           archive_.key_, archive_.random_));
  Sha256 hash;
  for (uint64_t at = 0; at < info.size;) {
    UCCP_TRY(const std::string piece, store.read(sha256, at, kBlobPieceBytes));
    if (piece.empty()) break;
    hash.update(piece);
    UCCP_RETURN_IF_ERROR(file->add(piece));
    at += piece.size();
  }
  if (to_hex(hash.finish()) != sha256) {
    return fail(Code::kCorruption, "BLOB_DIGEST_MISMATCH",
                "the blob " + sha256 + " is damaged, so it cannot be backed up");
  }
  UCCP_TRY(const FileSum sum, file->finish());
  return BlobPart{sha256, info.size, sum.size};
}

Status ArchiveWriter::add_blobs(objects::BlobStore& store, const Progress& progress) {
  for (std::string after;;) {
    UCCP_TRY(const auto names, store.list(after, kBlobsListed));
    if (names.empty()) return {};
    for (const std::string& sha256 : names) {
      auto part = add_blob(store, sha256);
      // Removed since it was listed: nothing refers to it.
      if (!part && part.error().code() == Code::kNotFound) continue;
      if (!part) return part.error();
      bytes_ += part->file_size;
      blobs_.push_back(std::move(*part));
      if (!progress(bytes_)) return stopped();
    }
    after = names.back();
  }
}

Result<Manifest> ArchiveWriter::finish(Manifest about) {
  about.id = id_;
  about.groups = groups_;
  about.blobs = blobs_;
  std::ranges::sort(about.groups, {}, &GroupPart::group);
  UCCP_TRY(auto file, SealedWriter::create(archive_.files_, folder_ + "/" + std::string(kManifestFile),
                                           SealedKind::kManifest, archive_.key_, archive_.random_));
  UCCP_RETURN_IF_ERROR(file->add(encode(about)));
  UCCP_TRY(const FileSum sum, file->finish());
  (void)sum;
  UCCP_RETURN_IF_ERROR(archive_.files_.sync_directory(folder_ + "/" + std::string(kBlobFolder)));
  UCCP_RETURN_IF_ERROR(archive_.files_.sync_directory(folder_));
  UCCP_RETURN_IF_ERROR(archive_.files_.rename(folder_, archive_.path_of(id_)));
  UCCP_RETURN_IF_ERROR(archive_.files_.sync_directory(archive_.directory_));
  return about;
}

}  // namespace uccp::backup
