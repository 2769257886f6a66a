// Lease/LeaseKeepAlive: each message keeps one lease; leases that are gone are told by a TTL of 0.
#include "doors/etcd/etcd_rpc.h"
#include "doors/etcd/etcd_services.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {
namespace {

// The messages that are not answered yet, and whether more may come.
struct KeepAlives {
  std::mutex mutex;
  size_t open = 0;
  bool closed = false;

  bool finished_one() {
    std::lock_guard lock(mutex);
    return --open == 0 && closed;
  }
  bool close() {
    std::lock_guard lock(mutex);
    closed = true;
    return open == 0;
  }
};

void keep_alive(const EtcdContextPtr& context, const call::CallPtr& call, const std::shared_ptr<KeepAlives>& state,
                int64_t id) {
  {
    std::lock_guard lock(state->mutex);
    ++state->open;
  }
  v1::KeepLeaseAliveRequest request;
  request.set_id(id);
  ask(*context, call, {"uccp.v1.KeyValue/KeepLeaseAlive"}, request.SerializeAsString(),
      [context, call, state, id](Result<std::string> bytes) {
        etcd::LeaseKeepAliveResponse answer;
        answer.set_id(id);
        v1::KeyLease lease;
        if (!bytes && bytes.error().reason() != "LEASE_NOT_FOUND") return call->finish(std::move(bytes.error()));
        if (bytes && !lease.ParseFromString(*bytes)) return call->finish(unreadable());
        answer.set_ttl(bytes ? lease.ttl().seconds() : 0);
        context->stamp(*answer.mutable_header(), lease.revision());
        call->send(answer.SerializeAsString());
        if (state->finished_one()) call->finish(Status::ok());
      });
}

}  // namespace

void add_etcd_keepalive(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Lease/LeaseKeepAlive"] = [context](const call::CallPtr& call) {
    const auto state = std::make_shared<KeepAlives>();
    call->on_message([context, state, raw = call.get()](std::string bytes) {
      const call::CallPtr self = raw->shared_from_this();
      etcd::LeaseKeepAliveRequest request;
      if (!request.ParseFromString(bytes)) return self->finish(unreadable());
      keep_alive(context, self, state, request.id());
    });
    call->on_half_close([state, raw = call.get()] {
      if (state->close()) raw->finish(Status::ok());
    });
  };
}

}  // namespace uccp::doors
