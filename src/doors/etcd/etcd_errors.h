// Failures as clients of etcd expect them: they compare gRPC's code and, for many, the text.
#pragma once

#include <string>

#include "base/status.h"

namespace uccp::doors {

struct EtcdError {
  int grpc_code = 0;  // 0: OK
  std::string text;
};

EtcdError etcd_error(const Status& status);

}  // namespace uccp::doors
