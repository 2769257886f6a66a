#include "server/encryption.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/bytes.h"
#include "base/log.h"
#include "runtime/posix_file_system.h"
#include "storage/rocksdb/rocks_kv.h"

namespace uccp::server {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kKeyFileBytesMax = 1u << 20;
constexpr size_t kCopiedAtOnceBytes = 4u << 20;

std::string keys_path(const std::string& data_dir) { return data_dir + "/keys/data.keys"; }

Result<SecretKey> read_master(FileSystem& files, const std::string& path) {
  UCCP_TRY(const std::string text, read_file(files, path, kKeyFileBytesMax));
  auto key = SecretKey::parse(text);
  if (!key) return fail(Code::kInvalid, "KEY_INVALID", path + ": " + key.error().message());
  return key;
}

Result<storage::KeyRing> read_ring(FileSystem& files, const std::string& data_dir, const SecretKey& master) {
  UCCP_TRY(const std::string bytes, read_file(files, keys_path(data_dir), kKeyFileBytesMax));
  auto ring = storage::KeyRing::decode(bytes, master);
  if (ring) return ring;
  return fail(ring.error().code(), ring.error().reason(), keys_path(data_dir) + ": " + ring.error().message());
}

Status write_ring(FileSystem& files, const std::string& data_dir, const storage::KeyRing& ring,
                  const SecretKey& master) {
  UCCP_RETURN_IF_ERROR(files.make_directories(data_dir + "/keys"));
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, keys_path(data_dir), ring.encode(master)));
  return files.sync_directory(data_dir);
}

storage::KeyRing with_new_key(const std::vector<storage::DataKey>& old, const Clock& clock, Random& random) {
  std::vector<storage::DataKey> keys = old;
  keys.push_back(storage::KeyRing::make_key(random, clock.wall()));
  return storage::KeyRing(std::move(keys));
}

// RocksDB's file CURRENT names the manifest, unless it is encrypted.
Result<bool> is_plain_database(FileSystem& files, const std::string& directory) {
  UCCP_TRY(const bool exists, files.exists(directory + "/CURRENT"));
  if (!exists) return false;
  UCCP_TRY(const std::string current, read_file(files, directory + "/CURRENT", kKeyFileBytesMax));
  return current.starts_with("MANIFEST-");
}

Status copy_state(const std::string& from, const std::string& to, const storage::RocksEncryption& encryption) {
  UCCP_TRY(auto source, storage::RocksKv::open(from, {}));
  UCCP_TRY(auto target, storage::RocksKv::open(to, {.encryption = encryption}));
  const auto view = source->view();
  const auto row = view->iterate();
  storage::KvBatch batch;
  size_t bytes = 0;
  for (row->seek(""); row->valid(); row->next()) {
    bytes += row->key().size() + row->value().size();
    batch.put(std::string(row->key()), std::string(row->value()));
    if (bytes < kCopiedAtOnceBytes) continue;
    UCCP_RETURN_IF_ERROR(target->write(std::exchange(batch, {})));
    bytes = 0;
  }
  UCCP_RETURN_IF_ERROR(row->status());
  UCCP_RETURN_IF_ERROR(target->write(batch));
  return target->flush();
}

// The state of a directory that was not encrypted so far, written again. A crash at any point is made up for by the
// next start: the copy takes its place only when it is whole.
Status encrypt_state(FileSystem& files, const std::string& data_dir, const storage::RocksEncryption& encryption) {
  const std::string kv = data_dir + "/state/kv";
  const std::string copy = data_dir + "/state/kv.encrypting";
  const std::string plain = data_dir + "/state/kv.plain";
  std::error_code error;
  UCCP_TRY(const bool moved, files.exists(plain));
  UCCP_TRY(const bool is_there, files.exists(kv));
  if (moved && !is_there) UCCP_RETURN_IF_ERROR(files.rename(copy, kv));
  UCCP_TRY(const bool to_do, is_plain_database(files, kv));
  if (to_do) {
    fs::remove_all(copy, error);
    log::info("encrypting the state", {{"directory", kv}});
    UCCP_RETURN_IF_ERROR(copy_state(kv, copy, encryption));
    UCCP_RETURN_IF_ERROR(files.rename(kv, plain));
    UCCP_RETURN_IF_ERROR(files.rename(copy, kv));
    UCCP_RETURN_IF_ERROR(files.sync_directory(data_dir + "/state"));
  }
  fs::remove_all(plain, error);
  return {};
}

}  // namespace

Result<std::unique_ptr<DataEncryption>> DataEncryption::open(FileSystem& files, const Config& config,
                                                             const std::string& data_dir, const Clock& clock,
                                                             Random& random) {
  std::unique_ptr<DataEncryption> encryption(new DataEncryption(files, random));
  UCCP_TRY(const bool has_keys, files.exists(keys_path(data_dir)));
  if (!config.is_set("encryption_key_file")) {
    if (!has_keys) return encryption;
    return fail(Code::kFailedPrecondition, "ENCRYPTION_KEY_NEEDED",
                data_dir + " is encrypted; set encryption_key_file to the file with its master key");
  }
  UCCP_TRY(const SecretKey master, read_master(files, config.text("encryption_key_file")));
  if (!has_keys) {
    encryption->ring_ = with_new_key({}, clock, random);
    UCCP_RETURN_IF_ERROR(write_ring(files, data_dir, *encryption->ring_, master));
  } else {
    UCCP_TRY(encryption->ring_, read_ring(files, data_dir, master));
    const int64_t age_ms = (clock.wall().us - encryption->ring_->newest().created_us) / 1000;
    const bool due = age_ms > config.duration_ms("encryption_key_age");
    if (due && encryption->ring_->keys().size() < storage::KeyRing::kKeysMax) {
      encryption->ring_ = with_new_key(encryption->ring_->keys(), clock, random);
      UCCP_RETURN_IF_ERROR(write_ring(files, data_dir, *encryption->ring_, master));
    }
  }
  encryption->encrypted_ = std::make_unique<storage::EncryptedFileSystem>(files, *encryption->ring_, random);
  UCCP_RETURN_IF_ERROR(encrypt_state(files, data_dir, encryption->rocks()));
  return encryption;
}

std::string DataEncryption::report() const {
  if (!on()) return "off";
  return fmt::format("{} data keys, the newest {}", ring_->keys().size(), to_hex(ring_->newest().id));
}

Result<std::string> rotate_keys(FileSystem& files, const Config& config, const std::string& data_dir,
                                const std::string& new_key_file, const Clock& clock, Random& random) {
  if (!config.is_set("encryption_key_file")) {
    return fail(Code::kInvalid, "USAGE", "--encryption-key-file must name the file with the master key");
  }
  UCCP_TRY(const auto lock, runtime::DirectoryLock::acquire(data_dir));
  UCCP_TRY(const SecretKey master, read_master(files, config.text("encryption_key_file")));
  UCCP_TRY(const storage::KeyRing old, read_ring(files, data_dir, master));
  if (old.keys().size() >= storage::KeyRing::kKeysMax) {
    return fail(Code::kExhausted, "KEYS_EXHAUSTED",
                data_dir + " has as many data keys as there may be; add it as a new node");
  }
  const storage::KeyRing ring = with_new_key(old.keys(), clock, random);
  SecretKey wrapping = master;
  if (!new_key_file.empty()) {
    UCCP_TRY(wrapping, read_master(files, new_key_file));
  }
  UCCP_RETURN_IF_ERROR(write_ring(files, data_dir, ring, wrapping));
  return fmt::format("{} data keys, the newest {}, wrapped by the master key {}\n", ring.keys().size(),
                     to_hex(ring.newest().id), to_hex(wrapping.id()));
}

}  // namespace uccp::server
