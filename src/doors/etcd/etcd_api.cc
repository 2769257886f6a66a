#include "doors/etcd/etcd_api.h"

#include "doors/etcd/etcd_errors.h"
#include "doors/etcd/etcd_services.h"

namespace uccp::doors {

ForeignApi etcd_api(const EtcdContextPtr& context) {
  ForeignApi api;
  api.error = [](const Status& status) {
    EtcdError error = etcd_error(status);
    return ForeignApi::Error{error.grpc_code, std::move(error.text)};
  };
  add_etcd_kv(api, context);
  add_etcd_keepalive(api, context);
  add_etcd_watch(api, context);
  add_etcd_lock(api, context);
  add_etcd_cluster(api, context);
  add_etcd_snapshot(api, context);
  return api;
}

}  // namespace uccp::doors
