// What a name below the zone asks for, and the records that answer it. Pure.
//
//   NAME.service.ZONE                        instances of a service; SRV, A, AAAA, TXT
//   _NAME._tcp.service.ZONE                  the same in the notation of RFC 2782; another word than tcp or udp is a
//   protocol VERSION.version.NAME.service.ZONE        of a version or range of versions, such as 1.2.version.web
//   PLACE.zone.NAME.service.ZONE             of an availability zone
//   TAG.tag.NAME.service.ZONE                with a capability, or a role of a rollout: canary, blue, green, stable
//   PORT.port.NAME.service.ZONE              SRV with the port of that name
//   ....service.NAMESPACE.ns.ZONE            of another namespace
//   HEX.addr.ZONE                            the address that is written in hexadecimal: targets of SRV records
// Selectors may follow each other. A service whose name contains one of the words above as a label cannot be asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "doors/dns/dns_message.h"
#include "uccp/v1/discovery.pb.h"

namespace uccp::doors {

inline constexpr int kDnsInstancesMax = 64;

struct DnsZone {
  DnsLabels name{"uccp"};
  std::string name_space = "default";
  uint32_t ttl_s = 5;
  uint32_t negative_ttl_s = 5;
};

struct DnsLookup {
  enum class Kind : uint8_t { kZone, kService, kAddress };
  Kind kind = Kind::kService;
  v1::DiscoverRequest request;  // of a service
  std::string port;             // named port, if asked for
  std::string address;          // of kAddress, as text
};
// kRefused: not below the zone. kNoName: below it, and nothing that could be. Case does not matter but in names of
// services.
struct DnsLookupResult {
  std::optional<DnsLookup> lookup;
  DnsCode code = DnsCode::kNoError;
};
DnsLookupResult read_lookup(const DnsZone& zone, const DnsLabels& name);

// The answer from the instances that were found, none of them: there is no such name.
DnsAnswer answer_service(const DnsZone& zone, const DnsQuery& query, const DnsLookup& lookup,
                         const v1::DiscoverResponse& found);
DnsAnswer answer_address(const DnsZone& zone, const DnsQuery& query, const DnsLookup& lookup);
// Nothing of that type, or (kNoName) at all: says for how long.
DnsAnswer answer_nothing(const DnsZone& zone, const DnsQuery& query, DnsCode code);

}  // namespace uccp::doors
