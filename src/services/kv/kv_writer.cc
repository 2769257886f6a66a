#include "services/kv/kv_writer.h"

#include <charconv>
#include <utility>

#include "base/bytes.h"
#include "services/kv/kv_events.h"
#include "services/kv/kv_range.h"

namespace uccp::kv {
namespace {

using internal::v1::KvLimits;

constexpr size_t kShownBytesMax = 128;

uint64_t limit_of(uint64_t own, uint64_t general) { return own > 0 ? own : general; }

Status exhausted(std::string_view reason, const std::string& what, uint64_t limit) {
  return std::move(Status(Code::kExhausted, reason,
                          "the namespace has the " + std::to_string(limit) + " " + what +
                              " that it may have; delete keys and compact, or raise its quota"))
      .with_help("kv.md#limits");
}

Status check_put(const v1::PutRequest& request) {
  if (request.ignore_value() && !request.value().empty()) {
    return Status(Code::kInvalid, "VALUE_PROVIDED", "a put that keeps the value of its key has none of its own")
        .with_field("value", "must be empty with ignoreValue");
  }
  if (request.ignore_lease() && request.lease() != 0) {
    return Status(Code::kInvalid, "LEASE_PROVIDED", "a put that keeps the lease of its key has none of its own")
        .with_field("lease", "must be 0 with ignoreLease");
  }
  return Status::ok();
}

Status compare_match(std::string_view if_match, std::string_view key, const std::optional<Version>& now) {
  if (if_match.empty()) return Status::ok();
  uint64_t wanted = 0;
  std::from_chars(if_match.data(), if_match.data() + if_match.size(), wanted);
  const uint64_t is = now ? now->mod : 0;
  if (wanted == is) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH",
                "the key " + shown(key) + (is == 0 ? " does not exist" : " has the revision " + std::to_string(is)) +
                    ", not " + std::to_string(wanted) + "; read it again and decide anew")
      .with_resource("key", std::string(key));
}

}  // namespace

std::string shown(std::string_view key) {
  if (key.size() <= kShownBytesMax && is_utf8(key)) return "'" + std::string(key) + "'";
  return "0x" + to_hex(key.substr(0, kShownBytesMax)) + (key.size() > kShownBytesMax ? "..." : "");
}

namespace {

template <typename Request>
Status check_named(const Request& request, const std::string& what, const std::string& verb) {
  if (!request.key().empty() || !request.prefix().empty()) return Status::ok();
  return Status(Code::kInvalid, "RANGE_INVALID",
                "the " + what + " names no key; to " + verb +
                    " all keys, name the key of one zero byte and the same as rangeEnd")
      .with_field("key", "is required without prefix", "app/config/retries");
}

}  // namespace

Status check_delete(const v1::DeleteRequest& request) { return check_named(request, "deletion", "delete"); }

Status check_rollback(const v1::RollbackRequest& request) { return check_named(request, "rollback", "roll back"); }

Status lease_not_found(int64_t id) {
  return Status(Code::kNotFound, "LEASE_NOT_FOUND",
                "the lease " + std::to_string(id) + " does not exist: it ended, was revoked, or was never granted")
      .with_resource("lease", std::to_string(id));
}

Status key_not_found(std::string_view key) {
  return Status(Code::kNotFound, "KEY_NOT_FOUND", "the key " + shown(key) + " does not exist")
      .with_resource("key", is_utf8(key) ? std::string(key) : to_hex(key));
}

StoreWriter::StoreWriter(machine::ApplyContext& context, CreationOrder& order)
    : c_(context),
      scope_(context.scope()),
      head_key_(head_key(scope_)),
      head_row_(c_.state().get(head_key_)),
      order_(order) {
  if (head_row_) head_ = decode_head(*head_row_);
}

StoreWriter::~StoreWriter() {
  for (auto it = ordered_.rbegin(); it != ordered_.rend(); ++it) {
    if (it->put) order_.erase(scope_, it->key, it->created);
    else order_.put(scope_, it->key, it->created, 0);
  }
}

Head StoreWriter::head_now() const {
  Head now = head_;
  now.revision = revision();
  return now;
}

Result<std::optional<std::string>> StoreWriter::put(const v1::PutRequest& request, const KvLimits& limits) {
  UCCP_RETURN_IF_ERROR(check_put(request));
  const std::string& key = request.key();
  const std::string row_key = key_key(scope_, key);
  std::optional<std::string> before = c_.state().get(row_key);
  std::optional<Version> old;
  if (before) old = decode_version(*before);
  UCCP_RETURN_IF_ERROR(compare_match(request.if_match(), key, old));
  if (!old && (request.ignore_value() || request.ignore_lease())) return fail(key_not_found(key));
  Version fresh;
  fresh.mod = head_.revision + 1;
  fresh.create = old ? old->create : fresh.mod;
  fresh.version = old ? old->version + 1 : 1;
  fresh.lease = request.ignore_lease() ? old->lease : request.lease();
  fresh.value = request.ignore_value() ? old->value : std::string_view(request.value());
  const int64_t old_lease = old ? old->lease : 0;
  if (fresh.lease != old_lease) {
    if (fresh.lease != 0) UCCP_RETURN_IF_ERROR(attach(fresh.lease, key));
    if (old_lease != 0) detach(old_lease, key);
  }
  std::string row = encode_version(fresh);
  order_.put(scope_, key, fresh.create, row.size());
  if (!old) ordered_.push_back({key, fresh.create, true});
  head_.bytes += key.size() + row.size();
  log(ChangeKind::kPut, key, old ? old->mod : 0);
  if (old) {
    head_.bytes -= key.size() + before->size();
    retire(key, *old, *before);
  } else {
    ++head_.keys;
  }
  const uint64_t keys_max = limit_of(head_.keys_max, limits.keys_max());
  const uint64_t bytes_max = limit_of(head_.bytes_max, limits.bytes_max());
  if (!old && head_.keys > keys_max) return fail(exhausted("KV_KEYS_EXHAUSTED", "keys", keys_max));
  if (head_.bytes + head_.history_bytes > bytes_max) {
    return fail(exhausted("KV_BYTES_EXHAUSTED", "bytes", bytes_max));
  }
  append_event(events_, ChangeKind::kPut, key, row, before ? std::string_view(*before) : std::string_view());
  c_.state().replace(row_key, before, std::move(row));
  return before;
}

Status StoreWriter::check_match(const KeyRange& range, std::string_view if_match) const {
  if (if_match.empty()) return Status::ok();
  if (!range.single) {
    return Status(Code::kInvalid, "RANGE_INVALID", "only one key can be compared with a revision, not a range")
        .with_field("ifMatch", "cannot be given with a range");
  }
  const auto row = c_.state().get(key_key(scope_, range.from));
  return compare_match(if_match, range.from, row ? decode_version(*row) : std::nullopt);
}

void StoreWriter::erase(std::string_view key, const std::string& row) {
  const Version old = *decode_version(row);
  const uint64_t revision = head_.revision + 1;
  if (old.lease != 0) detach(old.lease, key);
  head_.bytes -= key.size() + row.size();
  --head_.keys;
  log(ChangeKind::kDelete, key, old.mod);
  retire(key, old, row);
  std::string tombstone = encode_tombstone();
  head_.history_bytes += key.size() + tombstone.size();
  c_.state().replace(history_key(scope_, key, revision), std::nullopt, std::move(tombstone));
  append_event(events_, ChangeKind::kDelete, key, {}, row);
  order_.erase(scope_, key, old.create);
  ordered_.push_back({std::string(key), old.create, false});
  c_.state().replace(key_key(scope_, key), row, std::nullopt);
}

Result<std::vector<StoreWriter::Deleted>> StoreWriter::erase(const KeyRange& range) {
  std::vector<Deleted> deleted;
  if (range.single) {
    if (auto row = c_.state().get(key_key(scope_, range.from))) deleted.push_back({range.from, std::move(*row)});
  } else {
    scan_versions(c_.state(), scope_, range, head_.revision, head_.revision, [&](auto key, auto row) {
      deleted.push_back({std::string(key), std::string(row)});
      return deleted.size() <= kChangedKeysMax;
    });
  }
  if (deleted.size() > kChangedKeysMax) {
    return fail(Status(Code::kExhausted, "DELETE_TOO_LARGE",
                       "the range has more than " + std::to_string(kChangedKeysMax) +
                           " keys, as many as one change may delete; delete it in parts")
                    .with_help("kv.md#limits"));
  }
  for (const Deleted& one : deleted) erase(one.key, one.row);
  return deleted;
}

void StoreWriter::retire(std::string_view key, const Version& version, const std::string& row) {
  head_.history_bytes += key.size() + row.size();
  c_.state().replace(history_key(scope_, key, version.mod), std::nullopt, row);
}

void StoreWriter::log(ChangeKind kind, std::string_view key, uint64_t previous) {
  std::string row = encode_revision({kind, previous, key});
  head_.history_bytes += kRevisionRowBytes + row.size();
  c_.state().replace(revision_key(scope_, head_.revision + 1, number_++), std::nullopt, std::move(row));
}

Status StoreWriter::attach(int64_t lease, std::string_view key) {
  auto row = read_lease(c_.state(), scope_, lease);
  if (!row) return lease_not_found(lease);
  if (row->keys >= kChangedKeysMax) {
    return Status(Code::kExhausted, "LEASE_KEYS_EXHAUSTED",
                  "the lease " + std::to_string(lease) + " has " + std::to_string(row->keys) +
                      " keys, as many as one lease may have; grant another one")
        .with_help("kv.md#limits");
  }
  ++row->keys;
  c_.state().put(lease_row_key(scope_, lease), encode_lease(*row));
  c_.state().replace(lease_key_key(scope_, lease, key), std::nullopt, std::string());
  return Status::ok();
}

void StoreWriter::detach(int64_t lease, std::string_view key) {
  if (auto row = read_lease(c_.state(), scope_, lease)) {
    --row->keys;
    c_.state().put(lease_row_key(scope_, lease), encode_lease(*row));
  }
  c_.state().replace(lease_key_key(scope_, lease, key), std::string(), std::nullopt);
}

Result<int64_t> StoreWriter::grant(int64_t id, int64_t ttl_ms, const KvLimits& limits) {
  const uint64_t leases_max = limit_of(head_.leases_max, limits.leases_max());
  if (head_.leases >= leases_max) return fail(exhausted("LEASES_EXHAUSTED", "leases", leases_max));
  if (id != 0 && read_lease(c_.state(), scope_, id)) {
    return fail(Status(Code::kAlreadyExists, "LEASE_EXISTS", "the lease " + std::to_string(id) + " exists already")
                    .with_resource("lease", std::to_string(id)));
  }
  if (id == 0) {
    // Numbers grow with the log, so one that is taken was chosen by somebody.
    id = static_cast<int64_t>(c_.index().value << 16 | 1);
    while (read_lease(c_.state(), scope_, id)) ++id;
  }
  LeaseRow row;
  row.lease = c_.create_lease("kv", ByteWriter().u64(static_cast<uint64_t>(id)).take(), ttl_ms);
  row.ttl_ms = ttl_ms;
  row.granted = c_.envelope().wall;
  c_.state().put(lease_row_key(scope_, id), encode_lease(row));
  ++head_.leases;
  return id;
}

uint64_t StoreWriter::erase_lease(int64_t id, const LeaseRow& row) {
  std::vector<std::string> keys;
  const std::string prefix = lease_key_key(scope_, id, "");
  c_.state().scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view) {
    keys.emplace_back(key.substr(prefix.size()));
    return keys.size() < row.keys;
  });
  // Gone first, so that its keys do not count it down one by one.
  c_.state().erase(lease_row_key(scope_, id));
  --head_.leases;
  for (const std::string& key : keys) {
    if (const auto version = c_.state().get(key_key(scope_, key))) erase(key, *version);
  }
  return keys.size();
}

Result<uint64_t> StoreWriter::revoke(int64_t id) {
  const auto row = read_lease(c_.state(), scope_, id);
  if (!row) return fail(lease_not_found(id));
  c_.delete_lease(row->lease);
  return erase_lease(id, *row);
}

void StoreWriter::expire(int64_t id) {
  if (const auto row = read_lease(c_.state(), scope_, id)) erase_lease(id, *row);
}

void StoreWriter::finish() {
  head_.revision = revision();
  const bool any = std::exchange(number_, 0) > 0;
  ordered_.clear();
  std::string row = encode_head(head_);
  if (row != head_row_) c_.state().replace(head_key_, std::move(head_row_), std::move(row));
  if (any) c_.notify(kTopic, ByteWriter().u64(head_.revision).take(), 0, std::move(events_));
}

}  // namespace uccp::kv
