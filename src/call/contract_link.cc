#include "call/contract_link.h"

#include <vector>

#include "uccp/internal/v1/agent.pb.h"
#include "uccp/internal/v1/certificates.pb.h"
#include "uccp/internal/v1/node.pb.h"
#include "uccp/v1/admin.pb.h"
#include "uccp/v1/compute.pb.h"
#include "uccp/v1/coordination.pb.h"
#include "uccp/v1/discovery.pb.h"
#include "uccp/v1/events.pb.h"
#include "uccp/v1/identity.pb.h"
#include "uccp/v1/kv.pb.h"
#include "uccp/v1/options.pb.h"
#include "uccp/v1/resources.pb.h"
#include "uccp/v1/secrets.pb.h"
#include "uccp/v1/tasks.pb.h"
#include "uccp/v1/types.pb.h"
#include "uccp/v1/workers.pb.h"

namespace uccp::call {
namespace {

struct Linked {
  std::string_view name;
  const void* table;  // only to be referred to
};

const Linked kLinked[] = {
    {"uccp/v1/options.proto", &::descriptor_table_uccp_2fv1_2foptions_2eproto},
    {"uccp/v1/types.proto", &::descriptor_table_uccp_2fv1_2ftypes_2eproto},
    {"uccp/v1/discovery.proto", &::descriptor_table_uccp_2fv1_2fdiscovery_2eproto},
    {"uccp/v1/coordination.proto", &::descriptor_table_uccp_2fv1_2fcoordination_2eproto},
    {"uccp/v1/kv.proto", &::descriptor_table_uccp_2fv1_2fkv_2eproto},
    {"uccp/v1/events.proto", &::descriptor_table_uccp_2fv1_2fevents_2eproto},
    {"uccp/v1/tasks.proto", &::descriptor_table_uccp_2fv1_2ftasks_2eproto},
    {"uccp/v1/workers.proto", &::descriptor_table_uccp_2fv1_2fworkers_2eproto},
    {"uccp/v1/resources.proto", &::descriptor_table_uccp_2fv1_2fresources_2eproto},
    {"uccp/v1/compute.proto", &::descriptor_table_uccp_2fv1_2fcompute_2eproto},
    {"uccp/v1/admin.proto", &::descriptor_table_uccp_2fv1_2fadmin_2eproto},
    {"uccp/v1/identity.proto", &::descriptor_table_uccp_2fv1_2fidentity_2eproto},
    {"uccp/v1/secrets.proto", &::descriptor_table_uccp_2fv1_2fsecrets_2eproto},
    {"uccp/internal/v1/certificates.proto", &::descriptor_table_uccp_2finternal_2fv1_2fcertificates_2eproto},
    {"uccp/internal/v1/agent.proto", &::descriptor_table_uccp_2finternal_2fv1_2fagent_2eproto},
    {"uccp/internal/v1/node.proto", &::descriptor_table_uccp_2finternal_2fv1_2fnode_2eproto},
};

}  // namespace

std::span<const std::string_view> linked_files() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const Linked& file : kLinked) {
      // Reading the address at run time keeps the reference in the object file.
      const volatile auto* table = &file.table;
      if (*table != nullptr) all.push_back(file.name);
    }
    return all;
  }();
  return names;
}

}  // namespace uccp::call
