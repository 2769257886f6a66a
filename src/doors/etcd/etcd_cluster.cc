// Cluster and Maintenance, as far as they read: members, state, alarms, hashes. Members are changed by the contract's
// own means, since theirs is another idea of a member.
#include <charconv>

#include "doors/etcd/etcd_rpc.h"
#include "doors/etcd/etcd_services.h"
#include "uccp/v1/admin.pb.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {
namespace {

// The version of etcd whose API this is: what clients compare to know what they may ask for.
constexpr std::string_view kApiVersion = "3.5.0";
constexpr std::string_view kCoreGroup = "core";

using Empty = etcd::WatchProgressRequest;

// "n3" -> 3.
uint64_t member_number(std::string_view id) {
  uint64_t number = 0;
  if (id.starts_with('n')) std::from_chars(id.data() + 1, id.data() + id.size(), number);
  return number;
}

etcd::MemberListResponse members_of(const EtcdContext& context, const v1::ClusterStatus& status) {
  etcd::MemberListResponse answer;
  for (const v1::ClusterReplica& replica : status.replicas()) {
    if (replica.group() != kCoreGroup) continue;
    etcd::Member& member = *answer.add_members();
    member.set_id(member_number(replica.node_id()));
    member.set_name(replica.node_id());
    member.set_is_learner(std::ranges::find(replica.learners(), replica.node_id()) != replica.learners().end());
    for (const v1::ClusterMember& known : status.members()) {
      if (known.id() != replica.node_id()) continue;
      if (!known.raft_address().empty()) member.add_peer_urls("https://" + known.raft_address());
      // Nodes tell each other where their doors are; of one that runs alone nobody is told.
      if (!known.etcd_address().empty()) member.add_client_urls("https://" + known.etcd_address());
    }
    if (member.client_urls().empty() && member.id() == context.member_id) {
      member.add_client_urls("https://" + context.host + ":" + std::to_string(context.port.load()));
    }
  }
  context.stamp(*answer.mutable_header(), 0);
  return answer;
}

etcd::StatusResponse state_of(const EtcdContext& context, const v1::ClusterStatus& status,
                              const v1::KeyValueStore& store) {
  etcd::StatusResponse answer;
  answer.set_version(std::string(kApiVersion));
  answer.set_db_size(static_cast<int64_t>(store.bytes() + store.history_bytes()));
  answer.set_db_size_in_use(static_cast<int64_t>(store.bytes()));
  for (const v1::ClusterReplica& replica : status.replicas()) {
    if (replica.group() != kCoreGroup || member_number(replica.node_id()) != context.member_id) continue;
    answer.set_leader(member_number(replica.leader_id()));
    answer.set_raft_index(replica.commit_index());
    answer.set_raft_term(replica.term());
    answer.set_raft_applied_index(replica.applied_index());
    answer.set_is_learner(std::ranges::find(replica.learners(), replica.node_id()) != replica.learners().end());
    if (replica.leader_id().empty()) answer.add_errors("etcdserver: no leader");
  }
  context.stamp(*answer.mutable_header(), store.revision());
  return answer;
}

// The state of the cluster, then what `next` makes of it.
template <typename Next>
void with_status(const EtcdContextPtr& context, const call::CallPtr& call, Next next) {
  ask_for<v1::ClusterStatus>(*context, call, {"uccp.v1.Administration/GetClusterStatus"}, v1::GetClusterStatusRequest(),
                             std::move(next));
}

void hash(const EtcdContextPtr& context, const call::CallPtr& call, int64_t revision) {
  v1::HashStoreRequest request;
  request.set_revision(revision);
  ask_for<v1::HashStoreResponse>(*context, call, {"uccp.v1.KeyValue/HashStore"}, request,
                                 [context, call](const v1::HashStoreResponse& hashed) {
                                   etcd::HashKvResponse answer;
                                   answer.set_hash(static_cast<uint32_t>(hashed.hash() ^ (hashed.hash() >> 32)));
                                   answer.set_compact_revision(hashed.compact_revision());
                                   answer.set_hash_revision(hashed.hash_revision());
                                   context->stamp(*answer.mutable_header(), hashed.revision());
                                   call->reply(answer.SerializeAsString());
                                 });
}

void move_leader(const EtcdContextPtr& context, const call::CallPtr& call, uint64_t target) {
  v1::TransferGroupLeadershipRequest request;
  request.set_group(std::string(kCoreGroup));
  request.set_node_id("n" + std::to_string(target));
  ask(*context, call, {"uccp.v1.Administration/TransferGroupLeadership"}, request.SerializeAsString(),
      [context, call](Result<std::string> bytes) {
        if (!bytes) {
          const bool no_member = bytes.error().code() == Code::kNotFound || bytes.error().code() == Code::kInvalid;
          if (!no_member) return call->finish(std::move(bytes.error()));
          return call->finish(Status(Code::kFailedPrecondition, "BAD_TRANSFEREE", bytes.error().message()));
        }
        etcd::HeaderResponse answer;
        context->stamp(*answer.mutable_header(), 0);
        call->reply(answer.SerializeAsString());
      });
}

void add_maintenance(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Maintenance/Status"] = unary<Empty>([context](const call::CallPtr& call, const Empty&) {
    with_status(context, call, [context, call](const v1::ClusterStatus& status) {
      ask_for<v1::KeyValueStore>(*context, call, {"uccp.v1.KeyValue/GetStore", kEtcdSerializable},
                                 v1::GetStoreRequest(), [context, call, status](const v1::KeyValueStore& store) {
                                   call->reply(state_of(*context, status, store).SerializeAsString());
                                 });
    });
  });
  api.handlers["/etcdserverpb.Maintenance/HashKV"] =
      unary<etcd::HashKvRequest>([context](const call::CallPtr& call, const etcd::HashKvRequest& request) {
        hash(context, call, request.revision());
      });
  api.handlers["/etcdserverpb.Maintenance/Hash"] =
      unary<Empty>([context](const call::CallPtr& call, const Empty&) { hash(context, call, 0); });
  api.handlers["/etcdserverpb.Maintenance/MoveLeader"] =
      unary<etcd::MoveLeaderRequest>([context](const call::CallPtr& call, const etcd::MoveLeaderRequest& request) {
        move_leader(context, call, request.target_id());
      });
  // Space of removed versions is given back in the background; there is nothing to wait for, so this only answers.
  api.handlers["/etcdserverpb.Maintenance/Defragment"] =
      unary<Empty>([context](const call::CallPtr& call, const Empty&) {
        ask_for<v1::KeyValueStore>(*context, call, {"uccp.v1.KeyValue/GetStore", kEtcdSerializable},
                                   v1::GetStoreRequest(), [context, call](const v1::KeyValueStore& store) {
                                     etcd::HeaderResponse answer;
                                     context->stamp(*answer.mutable_header(), store.revision());
                                     call->reply(answer.SerializeAsString());
                                   });
      });
  // A store that is full is told as etcd tells a full disk. It ends by itself when there is room, not by disarming.
  api.handlers["/etcdserverpb.Maintenance/Alarm"] =
      unary<etcd::AlarmRequest>([context](const call::CallPtr& call, const etcd::AlarmRequest&) {
        ask_for<v1::KeyValueStore>(*context, call, {"uccp.v1.KeyValue/GetStore", kEtcdSerializable},
                                   v1::GetStoreRequest(), [context, call](const v1::KeyValueStore& store) {
                                     etcd::AlarmResponse answer;
                                     if (store.bytes() + store.history_bytes() >= store.bytes_max()) {
                                       etcd::AlarmMember& full = *answer.add_alarms();
                                       full.set_member_id(context->member_id);
                                       full.set_alarm(1);
                                     }
                                     context->stamp(*answer.mutable_header(), store.revision());
                                     call->reply(answer.SerializeAsString());
                                   });
      });
}

}  // namespace

void add_etcd_cluster(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Cluster/MemberList"] = unary<Empty>([context](const call::CallPtr& call, const Empty&) {
    with_status(context, call, [context, call](const v1::ClusterStatus& status) {
      call->reply(members_of(*context, status).SerializeAsString());
    });
  });
  for (const char* method : {"MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"}) {
    api.handlers[std::string("/etcdserverpb.Cluster/") + method] = [](const call::CallPtr& call) {
      call->finish(Status(Code::kUnimplemented, "USE_CONTRACT",
                          "members are changed with `uccp-cli cluster join|promote|remove`, not by this API"));
    };
  }
  add_maintenance(api, context);
}

}  // namespace uccp::doors
