// The parts of the etcd API, each of which adds its handlers. Private to the etcd door.
#pragma once

#include "doors/etcd/etcd_ask.h"
#include "doors/foreign_api.h"

namespace uccp::doors {

void add_etcd_kv(ForeignApi& api, const EtcdContextPtr& context);         // KV, Lease but its stream
void add_etcd_keepalive(ForeignApi& api, const EtcdContextPtr& context);  // Lease/LeaseKeepAlive
void add_etcd_watch(ForeignApi& api, const EtcdContextPtr& context);      // Watch
void add_etcd_lock(ForeignApi& api, const EtcdContextPtr& context);       // v3lock, v3election
void add_etcd_cluster(ForeignApi& api, const EtcdContextPtr& context);    // Cluster, Maintenance
void add_etcd_snapshot(ForeignApi& api, const EtcdContextPtr& context);   // Maintenance/Snapshot

}  // namespace uccp::doors
