#include "storage/rocksdb/rocks_encryption.h"

#include <rocksdb/env_encryption.h>

#include <cstring>

#include "base/bytes.h"
#include "base/disk_cipher.h"

namespace uccp::storage {
namespace {

constexpr std::string_view kMagic = "UCCPRDB\n";
constexpr uint32_t kVersion = 1;
constexpr size_t kSaltBytes = 32;
constexpr size_t kNonceBytes = 8;
constexpr size_t kPrefixBytes = 4096;
constexpr size_t kBlockBytes = 4096;
constexpr std::string_view kPurpose = "uccp rocksdb file";

// RocksDB writes a byte of a file once, and the key of a file is its own: counter mode is right here.
class Stream final : public rocksdb::BlockAccessCipherStream {
 public:
  Stream(const SecretKey& key, std::string_view nonce) : cipher_(key, nonce) {}

  size_t BlockSize() override { return kBlockBytes; }
  rocksdb::Status Encrypt(uint64_t offset, char* data, size_t size) override {
    cipher_.apply(offset, data, size);
    return rocksdb::Status::OK();
  }
  rocksdb::Status Decrypt(uint64_t offset, char* data, size_t size) override { return Encrypt(offset, data, size); }

 protected:
  void AllocateScratch(std::string&) override {}
  rocksdb::Status EncryptBlock(uint64_t block, char* data, char*) override {
    return Encrypt(block * kBlockBytes, data, kBlockBytes);
  }
  rocksdb::Status DecryptBlock(uint64_t block, char* data, char* scratch) override {
    return EncryptBlock(block, data, scratch);
  }

 private:
  const CtrCipher cipher_;
};

class Provider final : public rocksdb::EncryptionProvider {
 public:
  explicit Provider(const RocksEncryption& encryption) : encryption_(encryption) {}

  const char* Name() const override { return "uccp"; }
  size_t GetPrefixLength() const override { return kPrefixBytes; }

  rocksdb::Status CreateNewPrefix(const std::string&, char* prefix, size_t size) const override {
    ByteWriter header;
    header.raw(kMagic).u32(kVersion).raw(encryption_.keys->newest().id);
    for (size_t i = 0; i < kSaltBytes + kNonceBytes; i += 8) header.u64(encryption_.random->next());
    header.u32(crc32c(header.data()));
    if (size < header.data().size()) return rocksdb::Status::InvalidArgument("no room for the header of a file");
    std::memset(prefix, 0, size);
    std::memcpy(prefix, header.data().data(), header.data().size());
    return rocksdb::Status::OK();
  }

  rocksdb::Status AddCipher(const std::string&, const char*, size_t, bool) override {
    return rocksdb::Status::NotSupported("keys come from the key ring");
  }

  rocksdb::Status CreateCipherStream(const std::string& name, const rocksdb::EnvOptions&, rocksdb::Slice& prefix,
                                     std::unique_ptr<rocksdb::BlockAccessCipherStream>* result) override {
    const std::string_view bytes(prefix.data(), prefix.size());
    ByteReader in(bytes);
    const bool known = in.raw(kMagic.size()) == kMagic;
    const uint32_t version = in.u32();
    const std::string_view id = in.raw(KeyRing::kIdBytes);
    const std::string_view salt = in.raw(kSaltBytes);
    const std::string_view nonce = in.raw(kNonceBytes);
    const size_t used = bytes.size() - in.remaining();
    const bool intact = in.u32() == crc32c(bytes.substr(0, used));
    if (!known || !in.ok() || !intact)
      return rocksdb::Status::Corruption("not encrypted, or its header is damaged", name);
    if (version != kVersion) return rocksdb::Status::NotSupported("encrypted by a newer program", name);
    const DataKey* key = encryption_.keys->find(id);
    if (key == nullptr)
      return rocksdb::Status::Corruption("keys/data.keys does not have the data key " + to_hex(id), name);
    *result = std::make_unique<Stream>(key->key.derive(salt, kPurpose), nonce);
    return rocksdb::Status::OK();
  }

 private:
  const RocksEncryption encryption_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> encrypted_env(const RocksEncryption& encryption) {
  return std::unique_ptr<rocksdb::Env>(
      rocksdb::NewEncryptedEnv(rocksdb::Env::Default(), std::make_shared<Provider>(encryption)));
}

}  // namespace uccp::storage
