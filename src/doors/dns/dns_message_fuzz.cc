// Any bytes as a query: never crashes, answers fit their size, and what is answered repeats the question.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "doors/dns/dns_lookup.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::doors;
  const std::string_view packet(reinterpret_cast<const char*>(data), size);
  const auto query = read_query(packet);
  if (!query) return 0;
  const DnsZone zone;
  if (query->refusal) return write_refusal(*query, *query->refusal).size() > kDnsUdpBytesMax ? (std::abort(), 0) : 0;
  const auto read = read_lookup(zone, query->name);
  DnsAnswer answer = answer_nothing(zone, *query, DnsCode::kNoName);
  if (read.lookup && read.lookup->kind == DnsLookup::Kind::kAddress)
    answer = answer_address(zone, *query, *read.lookup);
  if (read.lookup && read.lookup->kind == DnsLookup::Kind::kService) {
    uccp::v1::DiscoverResponse found;
    for (int i = 0; i < 40; ++i) {
      auto& s = *found.add_services();
      s.set_id("i" + std::to_string(i));
      s.set_address(i % 2 == 0 ? "10.0.0." + std::to_string(i) : "fd00::" + std::to_string(i));
      s.set_port(80);
    }
    answer = answer_service(zone, *query, *read.lookup, found);
  }
  const std::string out = write_answer(*query, answer, query->udp_bytes_max);
  if (out.size() > query->udp_bytes_max && query->question.size() < 300) std::abort();
  if (out.substr(0, 2) != packet.substr(0, 2)) std::abort();
  if (out.substr(kDnsHeaderBytes, query->question.size()) != query->question) std::abort();
  return 0;
}
