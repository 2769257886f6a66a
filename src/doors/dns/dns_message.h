// DNS messages (RFC 1035, EDNS of RFC 6891): reading a query, writing its answer. Pure.
//
// The reader takes any bytes: what it cannot read it names by the code to answer with, or says that nothing should be
// answered at all. The writer fits an answer into a size, and marks it truncated when an answer record did not fit.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace uccp::doors {

inline constexpr size_t kDnsHeaderBytes = 12;
inline constexpr size_t kDnsPlainUdpBytes = 512;
// What is sent by UDP at most, whatever the client takes: larger datagrams get lost on the way.
inline constexpr size_t kDnsUdpBytesMax = 1232;
inline constexpr size_t kDnsTcpBytesMax = 65535;

enum class DnsType : uint16_t { kA = 1, kCname = 5, kSoa = 6, kTxt = 16, kAaaa = 28, kSrv = 33, kOpt = 41, kAny = 255 };
enum class DnsCode : uint8_t {
  kNoError = 0,
  kFormat = 1,
  kServerFailure = 2,
  kNoName = 3,
  kNotImplemented = 4,
  kRefused = 5
};
inline constexpr uint8_t kDnsBadVersion = 16;  // an extended code, for EDNS

using DnsLabels = std::vector<std::string>;

struct DnsQuery {
  uint16_t id = 0;
  bool recursion_desired = false;
  DnsLabels name;
  uint16_t type = 0;
  std::string question;  // as it came, to be sent back
  bool edns = false;
  size_t udp_bytes_max = kDnsPlainUdpBytes;
  // Set when it cannot be served: the code to answer with.
  std::optional<uint8_t> refusal;
};
// Nothing: not a query, to be dropped.
std::optional<DnsQuery> read_query(std::string_view packet);

struct DnsRecord {
  DnsLabels owner;  // empty: the name that was asked for
  DnsType type = DnsType::kA;
  uint32_t ttl_s = 0;
  std::string data;
};
struct DnsAnswer {
  DnsCode code = DnsCode::kNoError;
  std::vector<DnsRecord> answers, authority, additional;
};
std::string write_answer(const DnsQuery& query, const DnsAnswer& answer, size_t bytes_max);
// An answer without records, for a query that cannot be served.
std::string write_refusal(const DnsQuery& query, uint8_t code);

// Record data.
void put_name(std::string& out, const DnsLabels& name);
std::optional<std::string> ipv4_data(std::string_view address);
std::optional<std::string> ipv6_data(std::string_view address);
std::string srv_data(uint16_t priority, uint16_t weight, uint16_t port, const DnsLabels& target);
// Strings longer than 255 bytes are cut.
std::string txt_data(const std::vector<std::string>& strings);
std::string soa_data(const DnsLabels& zone, uint32_t serial, uint32_t negative_ttl_s);

// "a.b.c", "a.b.c." -> labels. Labels that DNS cannot have make it empty.
DnsLabels split_name(std::string_view text);

}  // namespace uccp::doors
