#include "services/secrets/secret_seals.h"

#include "base/bytes.h"

namespace uccp::secrets {
namespace {

using internal::v1::SecretValueRow;
using internal::v1::WrappingKeyRow;

constexpr uint8_t kVersion = 1;
constexpr std::string_view kWrappingPurpose = "uccp secrets wrapping key";
constexpr std::string_view kDataPurpose = "uccp secrets data key";

// What a value belongs to: put into another row it does not open.
std::string place(const machine::Scope& scope, std::string_view name) {
  return ByteWriter().key_part(scope.tenant).key_part(scope.name_space).key_part(name).take();
}

// u8 version, salt, cipher text and tag: by a key of its own, so that the number can be 0.
std::string seal_salted(const SecretKey& key, std::string_view salt, std::string_view purpose, std::string_view bound,
                        std::string_view plain) {
  return ByteWriter().u8(kVersion).raw(salt).raw(Aead(key.derive(salt, purpose)).seal(0, bound, plain)).take();
}

std::optional<std::string> open_salted(const SecretKey& key, std::string_view purpose, std::string_view bound,
                                       std::string_view sealed) {
  ByteReader in(sealed);
  const uint8_t version = in.u8();
  const std::string_view salt = in.raw(kSaltBytes);
  if (!in.ok() || version != kVersion) return std::nullopt;
  return Aead(key.derive(salt, purpose)).open(0, bound, in.rest());
}

Status unreadable(std::string_view what) {
  return Status(Code::kFailedPrecondition, "SECRET_UNREADABLE",
                std::string(what) +
                    " cannot be opened here: pki/token.key is not the one that the cluster had when it was stored, or "
                    "the stored bytes were changed")
      .with_help("secrets.md#keys");
}

Result<SecretKey> key_from(std::optional<std::string> opened, std::string_view what) {
  if (!opened || opened->size() != SecretKey::kBytes) return fail(unreadable(what));
  auto key = SecretKey::from_bytes(*opened);
  wipe(*opened);
  return key;
}

Result<SecretKey> data_key(const SecretKey& wrapping, std::string_view bound, const SecretValueRow& row) {
  return key_from(open_salted(wrapping, kDataPurpose, bound, row.wrapped_key()), "the data key of the secret");
}

}  // namespace

std::string SecretSeals::salt() const {
  ByteWriter out;
  while (out.data().size() < kSaltBytes) out.u64(random_.next());
  return out.take();
}

WrappingKeyRow SecretSeals::make_key(WallTime now) const {
  const SecretKey key = SecretKey::make(random_);
  WrappingKeyRow row;
  row.set_id(to_hex(key.id()));
  row.set_sealed(seal_salted(nodes_key_, salt(), kWrappingPurpose, row.id(), key.bytes()));
  row.set_create_us(now.us);
  return row;
}

Result<SecretKey> SecretSeals::open_key(const WrappingKeyRow& row) const {
  return key_from(open_salted(nodes_key_, kWrappingPurpose, row.id(), row.sealed()), "the wrapping key " + row.id());
}

void SecretSeals::wrap(SecretValueRow& row, const SecretKey& wrapping, const std::string& key_id,
                       std::string_view bound, const SecretKey& data_key) const {
  row.set_wrapped_key(seal_salted(wrapping, salt(), kDataPurpose, bound, data_key.bytes()));
  row.set_key_id(key_id);
}

Result<SecretValueRow> SecretSeals::seal(const WrappingKeyRow& key, const machine::Scope& scope, std::string_view name,
                                         std::string_view value) const {
  UCCP_TRY(const SecretKey wrapping, open_key(key));
  const SecretKey fresh = SecretKey::make(random_);
  const std::string bound = place(scope, name);
  SecretValueRow row;
  row.set_sealed(ByteWriter().u8(kVersion).raw(Aead(fresh).seal(0, bound, value)).take());
  wrap(row, wrapping, key.id(), bound, fresh);
  return row;
}

Result<std::string> SecretSeals::open(const WrappingKeyRow& key, const machine::Scope& scope, std::string_view name,
                                      const SecretValueRow& sealed) const {
  const std::string bound = place(scope, name);
  UCCP_TRY(const SecretKey wrapping, open_key(key));
  UCCP_TRY(const SecretKey data, data_key(wrapping, bound, sealed));
  ByteReader in(sealed.sealed());
  if (in.u8() == kVersion && in.ok()) {
    if (auto value = Aead(data).open(0, bound, in.rest())) return std::move(*value);
  }
  return fail(unreadable("the secret"));
}

Result<SecretValueRow> SecretSeals::rewrap(const WrappingKeyRow& from, const WrappingKeyRow& to,
                                           const machine::Scope& scope, std::string_view name,
                                           const SecretValueRow& sealed) const {
  const std::string bound = place(scope, name);
  UCCP_TRY(const SecretKey old_key, open_key(from));
  UCCP_TRY(const SecretKey new_key, open_key(to));
  UCCP_TRY(const SecretKey data, data_key(old_key, bound, sealed));
  SecretValueRow row;
  row.set_version(sealed.version());
  const std::string& bytes = sealed.sealed();
  row.set_sealed(bytes.substr(bytes.size() - std::min(bytes.size(), Aead::kTagBytes)));
  wrap(row, new_key, to.id(), bound, data);
  return row;
}

}  // namespace uccp::secrets
