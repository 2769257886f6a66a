#include "doors/dns/dns_lookup.h"

#include <arpa/inet.h>

#include <algorithm>
#include <map>
#include <set>

namespace uccp::doors {
namespace {

constexpr size_t kTxtStringsMax = 32;
constexpr uint16_t kWeightMax = 65535;

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string join(const DnsLabels& labels, size_t from, size_t to) {
  std::string out;
  for (size_t i = from; i < to; ++i) out.append(i == from ? "" : ".").append(labels[i]);
  return out;
}

std::optional<v1::DeploymentRole> role_named(const std::string& tag) {
  static const std::map<std::string, v1::DeploymentRole, std::less<>> kRoles = {{"stable", v1::DEPLOYMENT_ROLE_STABLE},
                                                                                {"canary", v1::DEPLOYMENT_ROLE_CANARY},
                                                                                {"blue", v1::DEPLOYMENT_ROLE_BLUE},
                                                                                {"green", v1::DEPLOYMENT_ROLE_GREEN}};
  const auto it = kRoles.find(lower(tag));
  return it == kRoles.end() ? std::nullopt : std::optional(it->second);
}

// One selector of the name. False: the word is none.
bool select(const std::string& word, const std::string& value, DnsLookup& lookup) {
  if (word == "version") lookup.request.set_version(value);
  else if (word == "zone") lookup.request.set_zone(value);
  else if (word == "port") lookup.port = value;
  else if (word != "tag") return false;
  if (word != "tag") return true;
  if (const auto role = role_named(value)) lookup.request.set_role(*role);
  else lookup.request.add_capabilities(value);
  return true;
}

// "_web._tcp".
bool read_rfc2782(const DnsLabels& rest, DnsLookup& lookup) {
  if (rest.size() != 2 || !rest[0].starts_with('_') || !rest[1].starts_with('_')) return false;
  lookup.request.set_name(rest[0].substr(1));
  const std::string protocol = lower(rest[1].substr(1));
  if (protocol != "tcp" && protocol != "udp") lookup.request.set_protocol(protocol);
  return true;
}

bool read_service(const DnsLabels& rest, DnsLookup& lookup) {
  if (rest.empty()) return false;
  if (!read_rfc2782(rest, lookup)) {
    size_t begun = 0;
    for (size_t i = 1; i + 1 < rest.size(); ++i) {
      if (i > begun && select(lower(rest[i]), join(rest, begun, i), lookup)) begun = i + 1;
    }
    lookup.request.set_name(join(rest, begun, rest.size()));
  }
  lookup.request.set_limit(kDnsInstancesMax);
  lookup.request.set_order(v1::DISCOVER_ORDER_WEIGHTED);
  return !lookup.request.name().empty();
}

bool read_address(const DnsLabels& rest, DnsLookup& lookup) {
  if (rest.size() != 1 || (rest[0].size() != 8 && rest[0].size() != 32)) return false;
  std::string bytes;
  for (size_t i = 0; i < rest[0].size(); i += 2) {
    const auto digit = [&](char c) -> int {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    const int high = digit(rest[0][i]), low = digit(rest[0][i + 1]);
    if (high < 0 || low < 0) return false;
    bytes += static_cast<char>(high * 16 + low);
  }
  char text[INET6_ADDRSTRLEN];
  inet_ntop(bytes.size() == 4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
  lookup.kind = DnsLookup::Kind::kAddress;
  lookup.address = text;
  return true;
}

std::optional<DnsRecord> address_record(const DnsZone& zone, const std::string& address) {
  if (auto data = ipv4_data(address)) return DnsRecord{{}, DnsType::kA, zone.ttl_s, std::move(*data)};
  if (auto data = ipv6_data(address)) return DnsRecord{{}, DnsType::kAaaa, zone.ttl_s, std::move(*data)};
  return std::nullopt;
}

bool wanted(const DnsQuery& query, DnsType type) {
  return query.type == static_cast<uint16_t>(type) || query.type == static_cast<uint16_t>(DnsType::kAny);
}

// The name of an address in the zone.
DnsLabels target_of(const DnsZone& zone, const DnsRecord& address) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : address.data) {
    hex += kDigits[static_cast<uint8_t>(c) >> 4];
    hex += kDigits[static_cast<uint8_t>(c) & 15];
  }
  DnsLabels name{hex, "addr"};
  name.insert(name.end(), zone.name.begin(), zone.name.end());
  return name;
}

std::vector<std::string> txt_of(const v1::ServiceRegistration& s) {
  std::vector<std::string> strings{"id=" + s.id()};
  if (!s.version().empty()) strings.push_back("version=" + s.version());
  const std::map<std::string, std::string> sorted(s.metadata().begin(), s.metadata().end());
  for (const auto& [key, value] : sorted) {
    if (strings.size() < kTxtStringsMax) strings.push_back(key + "=" + value);
  }
  return strings;
}

void add_srv(const DnsZone& zone, const DnsLookup& lookup, const v1::ServiceRegistration& s, std::set<DnsLabels>& told,
             DnsAnswer& answer) {
  int32_t port = s.port();
  if (!lookup.port.empty()) {
    const auto named = s.ports().find(lookup.port);
    if (named == s.ports().end()) return;
    port = named->second;
  }
  const auto address = address_record(zone, s.address());
  const DnsLabels target = address ? target_of(zone, *address) : split_name(s.address());
  if (target.empty()) return;
  const auto weight = static_cast<uint16_t>(std::min<int32_t>(s.effective_weight(), kWeightMax));
  answer.answers.push_back(
      {{},
       DnsType::kSrv,
       zone.ttl_s,
       srv_data(static_cast<uint16_t>(s.priority()), weight, static_cast<uint16_t>(port), target)});
  if (!address || !told.insert(target).second) return;
  DnsRecord extra = *address;
  extra.owner = target;
  answer.additional.push_back(std::move(extra));
}

}  // namespace

DnsLookupResult read_lookup(const DnsZone& zone, const DnsLabels& name) {
  DnsLabels rest = name;
  for (size_t i = zone.name.size(); i-- > 0;) {
    if (rest.empty() || lower(rest.back()) != zone.name[i]) return {std::nullopt, DnsCode::kRefused};
    rest.pop_back();
  }
  DnsLookup lookup;
  if (rest.empty()) {
    lookup.kind = DnsLookup::Kind::kZone;
    return {lookup, DnsCode::kNoError};
  }
  lookup.request.set_namespace_(zone.name_space);
  if (lower(rest.back()) == "ns" && rest.size() >= 2) {
    rest.pop_back();
    lookup.request.set_namespace_(lower(rest.back()));
    rest.pop_back();
  }
  const std::string word = rest.empty() ? "" : lower(rest.back());
  if (!rest.empty()) rest.pop_back();
  const bool known =
      (word == "service" && read_service(rest, lookup)) || (word == "addr" && read_address(rest, lookup));
  if (!known) return {std::nullopt, DnsCode::kNoName};
  return {lookup, DnsCode::kNoError};
}

DnsAnswer answer_nothing(const DnsZone& zone, const DnsQuery& query, DnsCode code) {
  DnsAnswer answer;
  answer.code = code;
  DnsRecord soa{zone.name, DnsType::kSoa, zone.negative_ttl_s, soa_data(zone.name, 1, zone.negative_ttl_s)};
  // Asked for itself it is the answer.
  const bool asked = code == DnsCode::kNoError && query.name.size() == zone.name.size() && wanted(query, DnsType::kSoa);
  (asked ? answer.answers : answer.authority).push_back(std::move(soa));
  return answer;
}

DnsAnswer answer_service(const DnsZone& zone, const DnsQuery& query, const DnsLookup& lookup,
                         const v1::DiscoverResponse& found) {
  if (found.services().empty()) return answer_nothing(zone, query, DnsCode::kNoName);
  DnsAnswer answer;
  std::set<std::string> addresses;
  std::set<DnsLabels> told;
  bool numeric = false;
  for (const v1::ServiceRegistration& s : found.services()) {
    auto address = address_record(zone, s.address());
    numeric |= address.has_value();
    if (address && wanted(query, address->type) && addresses.insert(address->data).second) {
      answer.answers.push_back(std::move(*address));
    }
    if (wanted(query, DnsType::kSrv)) add_srv(zone, lookup, s, told, answer);
    if (wanted(query, DnsType::kTxt)) {
      answer.answers.push_back({{}, DnsType::kTxt, zone.ttl_s, txt_data(txt_of(s))});
    }
  }
  // Instances that are known by host name only: the client's resolver goes on with the first of them.
  const bool wants_address = wanted(query, DnsType::kA) || wanted(query, DnsType::kAaaa);
  if (!numeric && wants_address && answer.answers.empty()) {
    if (const DnsLabels host = split_name(found.services(0).address()); !host.empty()) {
      std::string data;
      put_name(data, host);
      answer.answers.push_back({{}, DnsType::kCname, zone.ttl_s, std::move(data)});
    }
  }
  if (answer.answers.empty()) return answer_nothing(zone, query, DnsCode::kNoError);
  return answer;
}

DnsAnswer answer_address(const DnsZone& zone, const DnsQuery& query, const DnsLookup& lookup) {
  auto record = address_record(zone, lookup.address);
  if (!record || !wanted(query, record->type)) return answer_nothing(zone, query, DnsCode::kNoError);
  DnsAnswer answer;
  answer.answers.push_back(std::move(*record));
  return answer;
}

}  // namespace uccp::doors
