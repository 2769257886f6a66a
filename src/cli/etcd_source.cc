#include "cli/etcd_source.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"
#include "etcd.pb.h"
#include "storage/bolt_file.h"

namespace uccp::cli {
namespace {

constexpr int64_t kPageKeys = 500;
constexpr int64_t kCallMs = 30'000;
constexpr size_t kHashBytes = 32;
constexpr size_t kFilePageBytes = 512;  // a bbolt file is whole pages, of 512 bytes at least
constexpr size_t kRevisionKeyBytes = 17;

// The key behind all that begin with `prefix`; one byte 0: there is none.
std::string range_end(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

class LiveEtcd final : public EtcdSource {
 public:
  LiveEtcd(std::unique_ptr<Transport> transport, int64_t revision)
      : transport_(std::move(transport)), revision_(revision) {}

  Status open() {
    etcd::RangeRequest request;
    request.set_key(std::string(1, '\0'));
    request.set_limit(1);
    request.set_keys_only(true);
    request.set_revision(revision_);
    UCCP_TRY(const auto answer, ask<etcd::RangeResponse>("/etcdserverpb.KV/Range", request));
    if (revision_ == 0) revision_ = answer.header().revision();
    identity_ = "etcd " + std::to_string(answer.header().cluster_id()) + " at revision " + std::to_string(revision_);
    return Status::ok();
  }
  std::string identity() const override { return identity_; }
  int64_t revision() const override { return revision_; }

  Result<std::vector<EtcdPair>> read(const std::string& prefix, const std::string& after) override {
    etcd::RangeRequest request;
    // "\0" behind a key is the first key after it; an empty key is none.
    request.set_key(after.empty() ? (prefix.empty() ? std::string(1, '\0') : prefix) : after + '\0');
    request.set_range_end(range_end(prefix));
    request.set_limit(kPageKeys);
    request.set_revision(revision_);
    UCCP_TRY(const auto answer, ask<etcd::RangeResponse>("/etcdserverpb.KV/Range", request));
    std::vector<EtcdPair> pairs;
    for (const etcd::KeyValue& kv : answer.kvs()) pairs.push_back({kv.key(), kv.value(), kv.lease()});
    return pairs;
  }
  Result<int64_t> lease_ttl(int64_t id) override {
    etcd::LeaseTimeToLiveRequest request;
    request.set_id(id);
    UCCP_TRY(const auto answer, ask<etcd::LeaseTimeToLiveResponse>("/etcdserverpb.Lease/LeaseTimeToLive", request));
    return std::max<int64_t>(answer.ttl(), 0);
  }

 private:
  template <typename Response, typename Request>
  Result<Response> ask(const std::string& method, const Request& request) {
    auto bytes = transport_->unary(method, request.SerializeAsString(), {.timeout_ms = kCallMs});
    if (!bytes && bytes.error().message().find("has been compacted") != std::string::npos) {
      return fail(Code::kFailedPrecondition, "SOURCE_COMPACTED",
                  "etcd has compacted revision " + std::to_string(revision_) +
                      ", at which this import reads; remove the state file and begin anew");
    }
    if (!bytes) return std::unexpected(std::move(bytes.error()));
    Response response;
    if (response.ParseFromString(*bytes)) return response;
    return fail(Code::kInternal, "WIRE_INVALID", "the answer of etcd to " + method + " cannot be read");
  }

  std::unique_ptr<Transport> transport_;
  int64_t revision_;
  std::string identity_;
};

Status invalid(const std::string& why) {
  return Status(Code::kCorruption, "SNAPSHOT_INVALID", "the file is no whole snapshot of etcd: " + why);
}

class SnapshotEtcd final : public EtcdSource {
 public:
  Status open(const std::string& file) {
    std::string_view pages = file;
    // `snapshot save` puts the hash of the file behind it; a file of the data directory has none.
    if (file.size() % kFilePageBytes == kHashBytes) {
      pages.remove_suffix(kHashBytes);
      if (sha256(pages) != std::string_view(file).substr(pages.size())) return invalid("its hash does not fit");
    }
    identity_ = "snapshot " + to_hex(sha256(file)).substr(0, 16);
    Status trouble = Status::ok();
    UCCP_RETURN_IF_ERROR(storage::read_bolt(pages, "key", [&](std::string_view key, std::string_view value) {
      trouble = take(key, value);
      return trouble.is_ok();
    }));
    UCCP_RETURN_IF_ERROR(std::move(trouble));
    if (pairs_.empty() && revision_ == 0) return invalid("it has no keys, or is another kind of file");
    return storage::read_bolt(pages, "lease", [&](std::string_view, std::string_view value) {
      etcd::StoredLease lease;
      if (lease.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
        leases_[lease.id()] = lease.remaining_ttl() > 0 ? lease.remaining_ttl() : lease.ttl();
      }
      return true;
    });
  }
  std::string identity() const override { return identity_; }
  int64_t revision() const override { return revision_; }

  Result<std::vector<EtcdPair>> read(const std::string& prefix, const std::string& after) override {
    std::vector<EtcdPair> out;
    auto at = after.empty() ? pairs_.lower_bound(prefix) : pairs_.upper_bound(after);
    for (; at != pairs_.end() && at->first.starts_with(prefix) && out.size() < kPageKeys; ++at) {
      out.push_back({at->first, at->second.value, at->second.lease});
    }
    return out;
  }
  Result<int64_t> lease_ttl(int64_t id) override {
    const auto it = leases_.find(id);
    return it == leases_.end() ? 0 : it->second;
  }

 private:
  struct Stored {
    std::string value;
    int64_t lease;
  };

  // In the order of revisions: what comes later replaces what came before. "t" behind a revision is a deletion.
  Status take(std::string_view key, std::string_view value) {
    if (key.size() != kRevisionKeyBytes && key.size() != kRevisionKeyBytes + 1)
      return invalid("a revision is malformed");
    etcd::KeyValue kv;
    if (!kv.ParseFromArray(value.data(), static_cast<int>(value.size()))) return invalid("a pair cannot be read");
    if (kv.key().empty()) return invalid("a pair has no key");
    revision_ = std::max(revision_, static_cast<int64_t>(ByteReader(key).u64()));
    if (key.size() > kRevisionKeyBytes) pairs_.erase(kv.key());
    else pairs_[kv.key()] = {std::move(*kv.mutable_value()), kv.lease()};
    return Status::ok();
  }

  std::map<std::string, Stored> pairs_;
  std::map<int64_t, int64_t> leases_;
  int64_t revision_ = 0;
  std::string identity_;
};

}  // namespace

Result<std::unique_ptr<EtcdSource>> live_etcd(std::unique_ptr<Transport> transport, int64_t revision) {
  auto source = std::make_unique<LiveEtcd>(std::move(transport), revision);
  UCCP_RETURN_IF_ERROR(source->open());
  return source;
}

Result<std::unique_ptr<EtcdSource>> etcd_snapshot(std::string file) {
  auto source = std::make_unique<SnapshotEtcd>();
  UCCP_RETURN_IF_ERROR(source->open(file));
  return source;
}

}  // namespace uccp::cli
