// EtcdApi: the services of the etcd v3 API, as handlers of the gRPC door.
//
// KV, Watch, Lease, Lock, Election, and of Cluster and Maintenance what reads. The store is that of the namespace of
// the caller's credential, or of the metadata `uccp-namespace`. docs/etcd.md says where answers differ from etcd's.
#pragma once

#include <map>
#include <string>

#include "doors/etcd/etcd_ask.h"
#include "doors/foreign_api.h"

namespace uccp::doors {

// All paths that are answered, such as "/etcdserverpb.KV/Put".
ForeignApi etcd_api(const EtcdContextPtr& context);

}  // namespace uccp::doors
