#include "doors/dns/dns_message.h"

#include <arpa/inet.h>

#include <algorithm>

namespace uccp::doors {
namespace {

constexpr size_t kLabelMax = 63;
constexpr size_t kNameMax = 255;
constexpr uint16_t kClassIn = 1;
constexpr uint16_t kClassAny = 255;

void put_u8(std::string& out, uint8_t v) { out += static_cast<char>(v); }
void put_u16(std::string& out, uint16_t v) {
  put_u8(out, static_cast<uint8_t>(v >> 8));
  put_u8(out, static_cast<uint8_t>(v));
}
void put_u32(std::string& out, uint32_t v) {
  put_u16(out, static_cast<uint16_t>(v >> 16));
  put_u16(out, static_cast<uint16_t>(v));
}

class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  bool ok() const { return ok_; }
  size_t at() const { return at_; }
  uint8_t u8() { return static_cast<uint8_t>(take(1)[0]); }
  uint16_t u16() {
    const std::string_view v = take(2);
    return static_cast<uint16_t>(static_cast<uint8_t>(v[0]) << 8 | static_cast<uint8_t>(v[1]));
  }
  uint32_t u32() {
    const uint32_t high = u16();
    return high << 16 | u16();
  }
  void skip(size_t n) { take(n); }
  // Queries have no reason to compress, and pointers are how parsers are led in circles: they are malformed here.
  DnsLabels name() {
    DnsLabels labels;
    size_t length = 1;
    while (ok_) {
      const uint8_t size = u8();
      if (size == 0) break;
      length += size + 1;
      if (size > kLabelMax || length > kNameMax) ok_ = false;
      else labels.emplace_back(take(size));
    }
    return labels;
  }

 private:
  std::string_view take(size_t n) {
    static constexpr std::string_view kZeros("\0\0", 2);
    if (!ok_ || in_.size() - at_ < n) {
      ok_ = false;
      return kZeros;
    }
    const std::string_view v = in_.substr(at_, n);
    at_ += n;
    return v;
  }
  std::string_view in_;
  size_t at_ = 0;
  bool ok_ = true;
};

// The OPT record among the additional ones. False: malformed.
bool read_edns(Reader& in, uint16_t count, DnsQuery& query) {
  for (uint16_t i = 0; i < count; ++i) {
    const DnsLabels owner = in.name();
    const uint16_t type = in.u16(), size = in.u16();
    const uint32_t flags = in.u32();
    in.skip(in.u16());
    if (!in.ok()) return false;
    if (type != static_cast<uint16_t>(DnsType::kOpt)) continue;
    if (query.edns || !owner.empty()) return false;
    query.edns = true;
    query.udp_bytes_max = std::clamp<size_t>(size, kDnsPlainUdpBytes, kDnsUdpBytesMax);
    if ((flags >> 16 & 0xff) != 0) query.refusal = kDnsBadVersion;
  }
  return true;
}

void put_record(std::string& out, const DnsRecord& r) {
  if (r.owner.empty()) put_u16(out, 0xC000 | kDnsHeaderBytes);  // the name of the question
  else put_name(out, r.owner);
  put_u16(out, static_cast<uint16_t>(r.type));
  put_u16(out, kClassIn);
  put_u32(out, r.ttl_s);
  put_u16(out, static_cast<uint16_t>(r.data.size()));
  out += r.data;
}

std::string opt_record(uint8_t extended_code) {
  std::string out;
  put_u8(out, 0);
  put_u16(out, static_cast<uint16_t>(DnsType::kOpt));
  put_u16(out, kDnsUdpBytesMax);
  put_u32(out, static_cast<uint32_t>(extended_code) << 24);
  put_u16(out, 0);
  return out;
}

std::string header(const DnsQuery& q, uint8_t code, bool truncated, const std::array<uint16_t, 4>& counts) {
  std::string out;
  put_u16(out, q.id);
  // Response, authoritative.
  put_u8(out, static_cast<uint8_t>(0x84 | (truncated ? 0x02 : 0) | (q.recursion_desired ? 0x01 : 0)));
  put_u8(out, code & 0x0f);
  for (const uint16_t count : counts) put_u16(out, count);
  return out;
}

}  // namespace

std::optional<DnsQuery> read_query(std::string_view packet) {
  if (packet.size() < kDnsHeaderBytes) return std::nullopt;
  Reader in(packet);
  DnsQuery query;
  query.id = in.u16();
  const uint16_t flags = in.u16();
  if ((flags & 0x8000) != 0) return std::nullopt;  // an answer: answering it could go on for ever
  query.recursion_desired = (flags & 0x0100) != 0;
  const uint16_t questions = in.u16(), answers = in.u16(), authorities = in.u16(), additionals = in.u16();
  const auto refuse = [&](DnsCode code) {
    query.refusal = static_cast<uint8_t>(code);
    return query;
  };
  if ((flags >> 11 & 0xf) != 0) return refuse(DnsCode::kNotImplemented);
  if (questions != 1 || answers != 0 || authorities != 0) return refuse(DnsCode::kFormat);
  query.name = in.name();
  query.type = in.u16();
  const uint16_t question_class = in.u16();
  if (!in.ok()) return refuse(DnsCode::kFormat);
  query.question = packet.substr(kDnsHeaderBytes, in.at() - kDnsHeaderBytes);
  if (!read_edns(in, additionals, query)) return refuse(DnsCode::kFormat);
  if (question_class != kClassIn && question_class != kClassAny) return refuse(DnsCode::kRefused);
  return query;
}

std::string write_answer(const DnsQuery& query, const DnsAnswer& answer, size_t bytes_max) {
  const std::string opt = query.edns ? opt_record(0) : "";
  const size_t room = bytes_max - std::min(bytes_max, kDnsHeaderBytes + query.question.size() + opt.size());
  std::string body;
  std::array<uint16_t, 4> counts{1, 0, 0, 0};
  bool truncated = false;
  const auto add = [&](const std::vector<DnsRecord>& records, size_t section, bool needed) {
    for (const DnsRecord& record : records) {
      std::string bytes;
      put_record(bytes, record);
      if (body.size() + bytes.size() > room) {
        truncated |= needed;
        return;
      }
      body += bytes;
      ++counts[section];
    }
  };
  add(answer.answers, 1, true);
  if (!truncated) add(answer.authority, 2, true);
  if (!truncated) add(answer.additional, 3, false);
  if (query.edns) ++counts[3];
  return header(query, static_cast<uint8_t>(answer.code), truncated, counts) + query.question + body + opt;
}

std::string write_refusal(const DnsQuery& query, uint8_t code) {
  const uint16_t questions = query.question.empty() ? 0 : 1;
  const uint16_t edns = query.edns ? 1 : 0;
  return header(query, code, false, {questions, 0, 0, edns}) + query.question +
         (query.edns ? opt_record(static_cast<uint8_t>(code >> 4)) : "");
}

void put_name(std::string& out, const DnsLabels& name) {
  for (const std::string& label : name) {
    put_u8(out, static_cast<uint8_t>(label.size()));
    out += label;
  }
  put_u8(out, 0);
}

std::optional<std::string> ipv4_data(std::string_view address) {
  std::string data(4, '\0');
  return inet_pton(AF_INET, std::string(address).c_str(), data.data()) == 1 ? std::optional(data) : std::nullopt;
}

std::optional<std::string> ipv6_data(std::string_view address) {
  std::string data(16, '\0');
  return inet_pton(AF_INET6, std::string(address).c_str(), data.data()) == 1 ? std::optional(data) : std::nullopt;
}

std::string srv_data(uint16_t priority, uint16_t weight, uint16_t port, const DnsLabels& target) {
  std::string out;
  put_u16(out, priority);
  put_u16(out, weight);
  put_u16(out, port);
  put_name(out, target);
  return out;
}

std::string txt_data(const std::vector<std::string>& strings) {
  std::string out;
  for (const std::string& text : strings) {
    const size_t size = std::min<size_t>(text.size(), 255);
    put_u8(out, static_cast<uint8_t>(size));
    out.append(text, 0, size);
  }
  if (out.empty()) put_u8(out, 0);
  return out;
}

std::string soa_data(const DnsLabels& zone, uint32_t serial, uint32_t negative_ttl_s) {
  std::string out;
  DnsLabels name{"ns"};
  name.insert(name.end(), zone.begin(), zone.end());
  put_name(out, name);
  name[0] = "hostmaster";
  put_name(out, name);
  for (const uint32_t v : {serial, 3600u, 600u, 86400u, negative_ttl_s}) put_u32(out, v);
  return out;
}

DnsLabels split_name(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty() || text.size() > kNameMax - 2) return {};
  DnsLabels labels;
  for (size_t at = 0; at <= text.size();) {
    const size_t dot = std::min(text.find('.', at), text.size());
    if (dot == at || dot - at > kLabelMax) return {};
    labels.emplace_back(text.substr(at, dot - at));
    at = dot + 1;
  }
  return labels;
}

}  // namespace uccp::doors
