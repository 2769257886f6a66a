// Requests of etcd as requests of the contract, answers of the contract as answers of etcd. Pure.
#pragma once

#include "base/status.h"
#include "etcd.pb.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {

v1::RangeRequest from_etcd(const etcd::RangeRequest& request);
v1::PutRequest from_etcd(const etcd::PutRequest& request);
v1::DeleteRequest from_etcd(const etcd::DeleteRangeRequest& request);
// Errors: invalid TXN_INVALID for an operation or comparison that says nothing.
Result<v1::TxnRequest> from_etcd(const etcd::TxnRequest& request);
v1::WatchRequest from_etcd(const etcd::WatchCreateRequest& request);

etcd::KeyValue to_etcd(const v1::KeyValuePair& pair);
// Without header. The request tells how ranges were asked for, which etcd's answers depend on.
etcd::RangeResponse to_etcd(const v1::RangeResponse& answer, bool count_only);
etcd::PutResponse to_etcd(const v1::PutResponse& answer);
etcd::DeleteRangeResponse to_etcd(const v1::DeleteResponse& answer);
etcd::TxnResponse to_etcd(const v1::TxnResponse& answer, const etcd::TxnRequest& request);
etcd::Event to_etcd(const v1::KeyEvent& event);

}  // namespace uccp::doors
