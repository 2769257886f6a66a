// KV and Lease, as far as they are one question and one answer; see etcd_watch.cc and etcd_keepalive.cc for streams.
#include "doors/etcd/etcd_services.h"

#include "doors/etcd/etcd_convert.h"
#include "doors/etcd/etcd_rpc.h"

namespace uccp::doors {
namespace {

// Bytes of one answer, most of which a range may fill: what etcd's clients take by default is more, its servers send
// it.
constexpr size_t kAnswerBytesMax = 256u << 20;
// etcd takes leases of up to about 285 years.
constexpr int64_t kLeaseTtlMax = 9'000'000'000;

// A range whose pages are put together: the contract cuts answers, etcd does not.
class RangeRpc : public std::enable_shared_from_this<RangeRpc> {
 public:
  RangeRpc(EtcdContextPtr context, call::CallPtr call, etcd::RangeRequest request)
      : context_(std::move(context)), call_(std::move(call)), asked_(std::move(request)), next_(from_etcd(asked_)) {}

  void run() {
    if (asked_.key().empty()) {
      return call_->finish(Status(Code::kInvalid, "KEY_MISSING", "a range has a key"));
    }
    if (!etcd::RangeRequest::SortOrder_IsValid(asked_.sort_order()) ||
        !etcd::RangeRequest::SortTarget_IsValid(asked_.sort_target())) {
      return call_->finish(Status(Code::kInvalid, "SORT_INVALID", "a range is sorted in an order that there is"));
    }
    const AskOptions options{.method = "uccp.v1.KeyValue/Range",
                             .consistency = asked_.serializable() ? kEtcdSerializable : std::string_view()};
    ask_for<v1::RangeResponse>(*context_, call_, options, next_,
                               [self = shared_from_this()](v1::RangeResponse page) { self->take(page); });
  }

 private:
  void take(const v1::RangeResponse& page) {
    bytes_ += page.ByteSizeLong();
    if (bytes_ > kAnswerBytesMax) {
      return call_->finish(Status(Code::kExhausted, "RANGE_TOO_LARGE",
                                  "the range has more than 256 MiB; ask for it in parts, with a limit"));
    }
    etcd::RangeResponse converted = to_etcd(page, asked_.count_only());
    if (!begun_) {
      begun_ = true;
      answer_ = std::move(converted);
      context_->stamp(*answer_.mutable_header(), page.revision());
    } else {
      for (etcd::KeyValue& pair : *converted.mutable_kvs()) answer_.add_kvs()->Swap(&pair);
      answer_.set_more(page.more());
    }
    const int64_t left = asked_.limit() - answer_.kvs_size();
    if (page.more() && (asked_.limit() <= 0 || left > 0)) {
      next_.set_key(page.next_key());
      // One key has no further page; a range to the end of all keys keeps its end.
      next_.set_revision(page.revision());
      next_.set_count_total(false);
      if (asked_.limit() > 0) next_.set_limit(left);
      return run();
    }
    // Counted over all pages unless the first one counted for them.
    if (!asked_.count_only() && !counted()) answer_.set_count(answer_.kvs_size());
    std::string bytes;
    answer_.SerializeToString(&bytes);
    call_->reply(std::move(bytes));
  }
  bool counted() const { return from_etcd(asked_).count_total(); }

  const EtcdContextPtr context_;
  const call::CallPtr call_;
  const etcd::RangeRequest asked_;
  v1::RangeRequest next_;
  etcd::RangeResponse answer_;
  size_t bytes_ = 0;
  bool begun_ = false;
};

Status key_missing() { return {Code::kInvalid, "KEY_MISSING", "a request has a key"}; }

template <typename Answer>
void reply(const EtcdContext& context, call::Call& call, Answer answer, int64_t revision) {
  context.stamp(*answer.mutable_header(), revision);
  call.reply(answer.SerializeAsString());
}

int64_t whole_seconds(const google::protobuf::Duration& duration) {
  return duration.seconds() + (duration.nanos() > 0 ? 1 : 0);
}

void add_kv(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.KV/Range"] =
      unary<etcd::RangeRequest>([context](const call::CallPtr& call, etcd::RangeRequest request) {
        std::make_shared<RangeRpc>(context, call, std::move(request))->run();
      });
  api.handlers["/etcdserverpb.KV/Put"] =
      unary<etcd::PutRequest>([context](const call::CallPtr& call, const etcd::PutRequest& request) {
        if (request.key().empty()) return call->finish(key_missing());
        ask_for<v1::PutResponse>(*context, call, {"uccp.v1.KeyValue/Put"}, from_etcd(request),
                                 [context, call](const v1::PutResponse& answer) {
                                   reply(*context, *call, to_etcd(answer), answer.revision());
                                 });
      });
  api.handlers["/etcdserverpb.KV/DeleteRange"] =
      unary<etcd::DeleteRangeRequest>([context](const call::CallPtr& call, const etcd::DeleteRangeRequest& request) {
        if (request.key().empty()) return call->finish(key_missing());
        ask_for<v1::DeleteResponse>(*context, call, {"uccp.v1.KeyValue/Delete"}, from_etcd(request),
                                    [context, call](const v1::DeleteResponse& answer) {
                                      reply(*context, *call, to_etcd(answer), answer.revision());
                                    });
      });
  api.handlers["/etcdserverpb.KV/Txn"] =
      unary<etcd::TxnRequest>([context](const call::CallPtr& call, etcd::TxnRequest request) {
        Result<v1::TxnRequest> converted = from_etcd(request);
        if (!converted) return call->finish(std::move(converted.error()));
        ask_for<v1::TxnResponse>(*context, call, {"uccp.v1.KeyValue/Txn"}, *converted,
                                 [context, call, request = std::move(request)](const v1::TxnResponse& answer) {
                                   reply(*context, *call, to_etcd(answer, request), answer.revision());
                                 });
      });
  api.handlers["/etcdserverpb.KV/Compact"] =
      unary<etcd::CompactionRequest>([context](const call::CallPtr& call, const etcd::CompactionRequest& request) {
        if (request.revision() < 1) {
          return call->finish(Status(Code::kFailedPrecondition, "REVISION_COMPACTED", "revisions begin at 1"));
        }
        v1::CompactRequest compact;
        compact.set_revision(request.revision());
        compact.set_physical(request.physical());
        ask_for<v1::CompactResponse>(*context, call, {"uccp.v1.KeyValue/Compact"}, compact,
                                     [context, call](const v1::CompactResponse& answer) {
                                       reply(*context, *call, etcd::HeaderResponse(), answer.revision());
                                     });
      });
}

// All pages of the list.
class LeasesRpc : public std::enable_shared_from_this<LeasesRpc> {
 public:
  LeasesRpc(EtcdContextPtr context, call::CallPtr call) : context_(std::move(context)), call_(std::move(call)) {
    next_.set_page_size(1000);
  }
  void run() {
    ask_for<v1::ListLeasesResponse>(
        *context_, call_, {"uccp.v1.KeyValue/ListLeases"}, next_,
        [self = shared_from_this()](const v1::ListLeasesResponse& page) { self->take(page); });
  }

 private:
  void take(const v1::ListLeasesResponse& page) {
    for (const v1::KeyLease& lease : page.leases()) answer_.add_leases()->set_id(lease.id());
    if (page.next_page_token().empty()) return reply(*context_, *call_, std::move(answer_), 0);
    next_.set_page_token(page.next_page_token());
    run();
  }
  const EtcdContextPtr context_;
  const call::CallPtr call_;
  v1::ListLeasesRequest next_;
  etcd::LeaseLeasesResponse answer_;
};

void time_to_live(const EtcdContextPtr& context, const call::CallPtr& call,
                  const etcd::LeaseTimeToLiveRequest& request) {
  v1::GetLeaseRequest get;
  get.set_id(request.id());
  get.set_keys(request.keys());
  ask(*context, call, {"uccp.v1.KeyValue/GetLease"}, get.SerializeAsString(),
      [context, call, id = request.id()](Result<std::string> bytes) {
        etcd::LeaseTimeToLiveResponse answer;
        answer.set_id(id);
        v1::KeyLease lease;
        if (!bytes) {
          if (bytes.error().reason() != "LEASE_NOT_FOUND") return call->finish(std::move(bytes.error()));
          // A lease that is gone is no error here.
          answer.set_ttl(-1);
        } else if (!lease.ParseFromString(*bytes)) {
          return call->finish(unreadable());
        } else {
          answer.set_ttl(whole_seconds(lease.remaining()));
          answer.set_granted_ttl(whole_seconds(lease.ttl()));
          for (const std::string& key : lease.keys()) answer.add_keys(key);
        }
        reply(*context, *call, std::move(answer), lease.revision());
      });
}

void add_leases(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Lease/LeaseGrant"] =
      unary<etcd::LeaseGrantRequest>([context](const call::CallPtr& call, const etcd::LeaseGrantRequest& request) {
        if (request.ttl() > kLeaseTtlMax) {
          return call->finish(Status(Code::kInvalid, "LEASE_TTL_TOO_LARGE", "a lease lasts at most 9,000,000,000 s"));
        }
        v1::GrantLeaseRequest grant;
        grant.set_id(request.id());
        grant.mutable_ttl()->set_seconds(std::max<int64_t>(1, request.ttl()));
        ask_for<v1::KeyLease>(*context, call, {"uccp.v1.KeyValue/GrantLease"}, grant,
                              [context, call](const v1::KeyLease& lease) {
                                etcd::LeaseGrantResponse answer;
                                answer.set_id(lease.id());
                                answer.set_ttl(whole_seconds(lease.ttl()));
                                reply(*context, *call, std::move(answer), lease.revision());
                              });
      });
  const auto revoke =
      unary<etcd::LeaseRevokeRequest>([context](const call::CallPtr& call, const etcd::LeaseRevokeRequest& request) {
        v1::RevokeLeaseRequest gone;
        gone.set_id(request.id());
        ask_for<v1::RevokeLeaseResponse>(*context, call, {"uccp.v1.KeyValue/RevokeLease"}, gone,
                                         [context, call](const v1::RevokeLeaseResponse& answer) {
                                           reply(*context, *call, etcd::HeaderResponse(), answer.revision());
                                         });
      });
  api.handlers["/etcdserverpb.Lease/LeaseRevoke"] = revoke;
  api.handlers["/etcdserverpb.Lease/LeaseTimeToLive"] = unary<etcd::LeaseTimeToLiveRequest>(
      [context](const call::CallPtr& call, const etcd::LeaseTimeToLiveRequest& request) {
        time_to_live(context, call, request);
      });
  api.handlers["/etcdserverpb.Lease/LeaseLeases"] =
      unary<etcd::WatchProgressRequest>([context](const call::CallPtr& call, const etcd::WatchProgressRequest&) {
        std::make_shared<LeasesRpc>(context, call)->run();
      });
}

}  // namespace

void add_etcd_kv(ForeignApi& api, const EtcdContextPtr& context) {
  add_kv(api, context);
  add_leases(api, context);
}

}  // namespace uccp::doors
