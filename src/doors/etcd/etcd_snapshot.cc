// Maintenance/Snapshot: the store as a file that `etcdctl snapshot` checks and restores, a bbolt file with its SHA-256
// behind it. It holds the newest versions at one revision; older ones are marked as compacted.
//
// The store is read page by page with the caller's credentials, and put together in memory: the format is a tree, so
// nothing can be sent before all is known. Whoever has more than kEtcdSnapshotBytesMax uses backups.
#include <algorithm>
#include <atomic>

#include "base/bytes.h"
#include "base/hash.h"
#include "doors/etcd/etcd_convert.h"
#include "doors/etcd/etcd_rpc.h"
#include "doors/etcd/etcd_services.h"
#include "storage/bolt_file.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {
namespace {

constexpr size_t kEtcdSnapshotBytesMax = 512u << 20;
constexpr int64_t kPageKeys = 1000;
constexpr size_t kChunkBytes = 1u << 20;
constexpr size_t kQueuedBytesMax = 4u << 20;

// "main_sub": what etcd's pairs are keyed by.
std::string revision_key(int64_t main, int64_t sub) {
  return ByteWriter().u64(static_cast<uint64_t>(main)).raw("_").u64(static_cast<uint64_t>(sub)).take();
}

class SnapshotRpc : public std::enable_shared_from_this<SnapshotRpc> {
 public:
  SnapshotRpc(EtcdContextPtr context, call::CallPtr call) : context_(std::move(context)), call_(std::move(call)) {
    next_.set_key(std::string(1, '\0'));
    next_.set_range_end(std::string(1, '\0'));
    next_.set_limit(kPageKeys);
    leases_.set_page_size(1000);
    for (const char* bucket :
         {"alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"}) {
      buckets_[bucket];
    }
  }

  void read_keys() {
    ask_for<v1::RangeResponse>(*context_, call_, {"uccp.v1.KeyValue/Range"}, next_,
                               [self = shared_from_this()](const v1::RangeResponse& page) { self->take_keys(page); });
  }

 private:
  void take_keys(const v1::RangeResponse& page) {
    // All further pages are of the revision of the first one.
    if (revision_ == 0) revision_ = page.revision();
    for (const v1::KeyValuePair& pair : page.pairs()) {
      bytes_ += pair.key().size() + pair.value().size();
      const etcd::KeyValue stored = to_etcd(pair);
      buckets_["key"][revision_key(pair.mod_revision(), subs_[pair.mod_revision()]++)] = stored.SerializeAsString();
    }
    if (bytes_ > kEtcdSnapshotBytesMax) {
      return call_->finish(Status(Code::kExhausted, "SNAPSHOT_TOO_LARGE",
                                  "the store has more than " + std::to_string(kEtcdSnapshotBytesMax >> 20) +
                                      " MiB, which is too much for this format; use uccp-cli backup create"));
    }
    if (!page.more()) return read_leases();
    next_.set_revision(revision_);
    next_.set_key(page.next_key());
    read_keys();
  }

  void read_leases() {
    ask_for<v1::ListLeasesResponse>(
        *context_, call_, {"uccp.v1.KeyValue/ListLeases"}, leases_,
        [self = shared_from_this()](const v1::ListLeasesResponse& page) { self->take_leases(page); });
  }
  void take_leases(const v1::ListLeasesResponse& page) {
    for (const v1::KeyLease& lease : page.leases()) {
      etcd::StoredLease stored;
      stored.set_id(lease.id());
      stored.set_ttl(lease.ttl().seconds());
      stored.set_remaining_ttl(std::max<int64_t>(lease.remaining().seconds(), 1));
      buckets_["lease"][ByteWriter().u64(static_cast<uint64_t>(lease.id())).take()] = stored.SerializeAsString();
    }
    if (page.next_page_token().empty()) return send();
    leases_.set_page_token(page.next_page_token());
    read_leases();
  }

  void send() {
    storage::BoltBucket& meta = buckets_["meta"];
    meta["consistent_index"] = ByteWriter().u64(1).take();
    // There is no history: revisions before this one are compacted.
    meta["finishedCompactRev"] = revision_key(revision_, 0);
    meta["scheduledCompactRev"] = revision_key(revision_, 0);
    file_ = storage::write_bolt(buckets_);
    buckets_.clear();
    file_ += sha256(file_);
    // The queue of the door is short: what does not fit waits until the client has taken some.
    call_->on_drain([self = shared_from_this()] { self->send_more(); });
    send_more();
  }

  // The client may take some on another thread while this runs: one of them sends, and looks again for the others.
  void send_more() {
    if (turns_.fetch_add(1) != 0) return;
    uint32_t taken = 0;
    do {
      taken = turns_.load();
      send_some();
    } while (turns_.fetch_sub(taken) != taken);
  }
  void send_some() {
    while (!call_->finished()) {
      if (call_->sink->queued_bytes() > kQueuedBytesMax) return;
      const size_t at = sent_;
      sent_ += std::min(kChunkBytes, file_.size() - at);
      etcd::SnapshotResponse part;
      part.set_blob(file_.substr(at, sent_ - at));
      part.set_remaining_bytes(file_.size() - sent_);
      context_->stamp(*part.mutable_header(), revision_);
      call_->send(part.SerializeAsString());
      if (sent_ == file_.size()) return call_->finish(Status::ok());
    }
  }

  const EtcdContextPtr context_;
  const call::CallPtr call_;
  v1::RangeRequest next_;
  v1::ListLeasesRequest leases_;
  storage::BoltBuckets buckets_;
  std::map<int64_t, int64_t> subs_;  // keys of one revision so far
  int64_t revision_ = 0;
  size_t bytes_ = 0;
  std::string file_;
  size_t sent_ = 0;
  std::atomic<uint32_t> turns_ = 0;
};

}  // namespace

void add_etcd_snapshot(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Maintenance/Snapshot"] =
      unary<etcd::WatchProgressRequest>([context](const call::CallPtr& call, const etcd::WatchProgressRequest&) {
        std::make_shared<SnapshotRpc>(context, call)->read_keys();
      });
}

}  // namespace uccp::doors
