#include "doors/dns/dns_message.h"

#include <gtest/gtest.h>

#include "doors/dns/dns_lookup.h"

namespace uccp::doors {
namespace {

std::string u16(uint16_t v) { return {static_cast<char>(v >> 8), static_cast<char>(v)}; }

std::string packet(std::string_view name, DnsType type, std::optional<uint16_t> edns = std::nullopt,
                   uint16_t flags = 0x0100) {
  std::string out = u16(0x1234) + u16(flags) + u16(1) + u16(0) + u16(0) + u16(edns ? 1 : 0);
  put_name(out, split_name(name));
  out += u16(static_cast<uint16_t>(type)) + u16(1);
  if (edns) out += std::string(1, '\0') + u16(41) + u16(*edns) + std::string(6, '\0');
  return out;
}
uint16_t count(const std::string& answer, size_t section) {
  return static_cast<uint16_t>(static_cast<uint8_t>(answer[4 + 2 * section]) << 8 |
                               static_cast<uint8_t>(answer[5 + 2 * section]));
}
int code(const std::string& answer) { return answer[3] & 0xf; }
bool truncated(const std::string& answer) { return (answer[2] & 2) != 0; }

v1::DiscoverResponse instances(int number, const std::string& network = "10.0.0.") {
  v1::DiscoverResponse found;
  for (int i = 0; i < number; ++i) {
    auto& s = *found.add_services();
    s.set_id("i" + std::to_string(i));
    s.set_address(network + std::to_string(i));
    s.set_port(8000 + i);
    s.set_effective_weight(100);
    (*s.mutable_ports())["admin"] = 9000 + i;
  }
  return found;
}

TEST(DnsMessage, ReadsAQueryWithItsSize) {
  const auto plain = read_query(packet("Web.service.uccp", DnsType::kA));
  ASSERT_TRUE(plain && !plain->refusal);
  EXPECT_EQ(plain->name, (DnsLabels{"Web", "service", "uccp"}));
  EXPECT_EQ(plain->udp_bytes_max, kDnsPlainUdpBytes);
  EXPECT_TRUE(plain->recursion_desired);
  EXPECT_EQ(read_query(packet("a.uccp", DnsType::kA, 4096))->udp_bytes_max, kDnsUdpBytesMax)
      << "no more than gets through";
  EXPECT_EQ(read_query(packet("a.uccp", DnsType::kA, 100))->udp_bytes_max, kDnsPlainUdpBytes);
}

TEST(DnsMessage, RefusesOrDropsWhatItCannotServe) {
  EXPECT_FALSE(read_query("short"));
  EXPECT_FALSE(read_query(packet("a.uccp", DnsType::kA, std::nullopt, 0x8000))) << "an answer is never answered";
  EXPECT_EQ(read_query(packet("a.uccp", DnsType::kA, std::nullopt, 0x2800))->refusal, 4) << "UPDATE";
  std::string two = packet("a.uccp", DnsType::kA);
  two[5] = 2;
  EXPECT_EQ(read_query(two)->refusal, 1);
  std::string cut = packet("a.uccp", DnsType::kA);
  EXPECT_EQ(read_query(cut.substr(0, cut.size() - 1))->refusal, 1);
  std::string pointer = u16(1) + u16(0) + u16(1) + u16(0) + u16(0) + u16(0) + "\xc0\x0c" + u16(1) + u16(1);
  EXPECT_EQ(read_query(pointer)->refusal, 1);
  std::string version = packet("a.uccp", DnsType::kA, 1232);
  version[version.size() - 5] = 1;
  const auto query = read_query(version);
  EXPECT_EQ(query->refusal, kDnsBadVersion);
  const std::string refusal = write_refusal(*query, *query->refusal);
  EXPECT_EQ(code(refusal), 0) << "the upper bits of the code are in OPT";
  EXPECT_EQ(refusal[refusal.size() - 6], 1);
}

TEST(DnsMessage, TruncatesWholeRecordsAndSaysSo) {
  const auto query = *read_query(packet("web.service.uccp", DnsType::kA));
  const DnsZone zone;
  DnsLookup lookup;
  const std::string small =
      write_answer(query, answer_service(zone, query, lookup, instances(10)), query.udp_bytes_max);
  EXPECT_FALSE(truncated(small));
  EXPECT_EQ(count(small, 1), 10);
  const std::string big = write_answer(query, answer_service(zone, query, lookup, instances(60)), query.udp_bytes_max);
  EXPECT_TRUE(truncated(big));
  EXPECT_LE(big.size(), 512u);
  EXPECT_EQ(big.size(), kDnsHeaderBytes + query.question.size() + count(big, 1) * 16u);
  EXPECT_FALSE(truncated(write_answer(query, answer_service(zone, query, lookup, instances(60)), kDnsTcpBytesMax)));
  // Addresses of targets are a convenience: leaving them out is no truncation.
  const auto srv = *read_query(packet("web.service.uccp", DnsType::kSrv));
  const std::string targets = write_answer(srv, answer_service(zone, srv, lookup, instances(8)), srv.udp_bytes_max);
  EXPECT_FALSE(truncated(targets));
  EXPECT_EQ(count(targets, 1), 8);
  EXPECT_LT(count(targets, 3), 8);
}

struct Asked {
  std::string name, expected;
};
std::string asks(const std::string& name) {
  const auto read = read_lookup(DnsZone(), split_name(name));
  if (!read.lookup) return read.code == DnsCode::kRefused ? "refused" : "no name";
  const DnsLookup& l = *read.lookup;
  if (l.kind == DnsLookup::Kind::kZone) return "zone";
  if (l.kind == DnsLookup::Kind::kAddress) return l.address;
  const auto& r = l.request;
  std::string out = r.namespace_() + "/" + r.name();
  if (!r.version().empty()) out += " version=" + r.version();
  if (!r.zone().empty()) out += " zone=" + r.zone();
  if (!r.protocol().empty()) out += " protocol=" + r.protocol();
  for (const auto& c : r.capabilities()) out += " capability=" + c;
  if (r.role() != v1::DEPLOYMENT_ROLE_UNSPECIFIED) out += " role=" + v1::DeploymentRole_Name(r.role()).substr(16);
  if (!l.port.empty()) out += " port=" + l.port;
  return out;
}

TEST(DnsLookup, ReadsNames) {
  const Asked all[] = {
      {"web.service.uccp", "default/web"},
      {"WEB.SERVICE.UCCP", "default/WEB"},
      {"api.v2.service.uccp", "default/api.v2"},
      {"_web._tcp.service.uccp", "default/web"},
      {"_web._grpc.service.uccp", "default/web protocol=grpc"},
      {"1.2.version.web.service.uccp", "default/web version=1.2"},
      {"eu-1a.zone.web.service.uccp", "default/web zone=eu-1a"},
      {"canary.tag.web.service.uccp", "default/web role=CANARY"},
      {"payments.refund.tag.web.service.uccp", "default/web capability=payments.refund"},
      {"admin.port.web.service.uccp", "default/web port=admin"},
      {"1.2.version.eu.zone.web.service.uccp", "default/web version=1.2 zone=eu"},
      {"version.service.uccp", "default/version"},
      {"web.service.shop.ns.uccp", "shop/web"},
      {"0a000007.addr.uccp", "10.0.0.7"},
      {"fd000000000000000000000000000001.addr.uccp", "fd00::1"},
      {"uccp", "zone"},
      {"service.uccp", "no name"},
      {"web.uccp", "no name"},
      {"0a0007.addr.uccp", "no name"},
      {"zz000007.addr.uccp", "no name"},
      {"web.service.example", "refused"},
  };
  for (const Asked& a : all) EXPECT_EQ(asks(a.name), a.expected) << a.name;
}

TEST(DnsLookup, AnswersByType) {
  const DnsZone zone;
  const auto answer = [&](DnsType type, const v1::DiscoverResponse& found, const DnsLookup& lookup = {}) {
    return answer_service(zone, *read_query(packet("web.service.uccp", type)), lookup, found);
  };
  EXPECT_EQ(answer(DnsType::kA, instances(3)).answers.size(), 3u);
  const DnsAnswer other_family = answer(DnsType::kAaaa, instances(3));
  EXPECT_EQ(other_family.code, DnsCode::kNoError);
  EXPECT_TRUE(other_family.answers.empty());
  EXPECT_EQ(other_family.authority.size(), 1u) << "how long nothing of that type is there";
  EXPECT_EQ(answer(DnsType::kAaaa, instances(3, "fd00::")).answers.size(), 3u);
  EXPECT_EQ(answer(DnsType::kA, {}).code, DnsCode::kNoName);
  EXPECT_EQ(answer(DnsType::kAny, instances(2)).answers.size(), 6u);
  DnsLookup named;
  named.port = "admin";
  EXPECT_EQ(answer(DnsType::kSrv, instances(1), named).answers[0].data.substr(4, 2), u16(9000));
  named.port = "none";
  EXPECT_TRUE(answer(DnsType::kSrv, instances(1), named).answers.empty());
  v1::DiscoverResponse host;
  host.add_services()->set_address("web-1.example.org");
  host.mutable_services(0)->set_port(80);
  EXPECT_EQ(answer(DnsType::kA, host).answers[0].type, DnsType::kCname);
}

}  // namespace
}  // namespace uccp::doors
