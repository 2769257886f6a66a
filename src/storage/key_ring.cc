#include "storage/key_ring.h"

#include <algorithm>

#include "base/bytes.h"

namespace uccp::storage {
namespace {

constexpr std::string_view kMagic = "UCCPKEY\n";
constexpr uint32_t kVersion = 1;
constexpr std::string_view kPurpose = "uccp data key";

std::unexpected<Status> damaged() {
  return fail(
      Code::kCorruption, "KEYS_DAMAGED",
      "the file of data keys is damaged; without it nothing encrypted can be read: bring back a copy, or restore "
      "a backup");
}

// Each data key is wrapped by a key of its own, derived from the master: the number of the piece never repeats.
Aead wrapping(const SecretKey& master, std::string_view id) { return Aead(master.derive(id, kPurpose)); }

}  // namespace

DataKey KeyRing::make_key(Random& random, WallTime now) {
  return {ByteWriter().u64(random.next()).take(), now.us, SecretKey::make(random)};
}

const DataKey* KeyRing::find(std::string_view id) const {
  const auto found = std::ranges::find(keys_, id, &DataKey::id);
  return found == keys_.end() ? nullptr : &*found;
}

std::string KeyRing::encode(const SecretKey& master) const {
  ByteWriter out;
  out.raw(kMagic).u32(kVersion).raw(master.id()).u32(static_cast<uint32_t>(keys_.size()));
  for (const DataKey& key : keys_) {
    out.raw(key.id).u64(static_cast<uint64_t>(key.created_us));
    out.raw(wrapping(master, key.id).seal(0, key.id, key.key.bytes()));
  }
  return out.u32(crc32c(out.data())).take();
}

Result<KeyRing> KeyRing::decode(std::string_view bytes, const SecretKey& master) {
  if (bytes.size() < 4) return damaged();
  ByteReader in(bytes.substr(0, bytes.size() - 4));
  const bool known = in.raw(kMagic.size()) == kMagic;
  const uint32_t version = in.u32();
  if (!known || ByteReader(bytes.substr(bytes.size() - 4)).u32() != crc32c(bytes.substr(0, bytes.size() - 4))) {
    return damaged();
  }
  if (version != kVersion) {
    return fail(Code::kFailedPrecondition, "KEYS_VERSION_UNSUPPORTED",
                "the file of data keys has version " + std::to_string(version) + "; start a newer program");
  }
  const std::string_view master_id = in.raw(KeyRing::kIdBytes);
  const uint32_t count = in.u32();
  if (!in.ok() || count == 0 || count > kKeysMax) return damaged();
  if (master_id != master.id()) {
    return fail(Code::kFailedPrecondition, "MASTER_KEY_WRONG",
                "the data keys are wrapped by the master key " + to_hex(master_id) + " and the one given is " +
                    to_hex(master.id()) + "; set encryption_key_file to the file that holds the former");
  }
  std::vector<DataKey> keys;
  for (uint32_t i = 0; i < count; ++i) {
    DataKey key;
    key.id = in.raw(KeyRing::kIdBytes);
    key.created_us = static_cast<int64_t>(in.u64());
    const auto plain = wrapping(master, key.id).open(0, key.id, in.raw(SecretKey::kBytes + Aead::kTagBytes));
    if (!in.ok() || !plain) return damaged();
    UCCP_TRY(key.key, SecretKey::parse(to_hex(*plain)));
    keys.push_back(std::move(key));
  }
  if (!in.at_end()) return damaged();
  return KeyRing(std::move(keys));
}

}  // namespace uccp::storage
