#include "shm/s3_signature.h"

#include <openssl/hmac.h>

#include <ctime>

#include "base/bytes.h"
#include "base/hash.h"

namespace uccp::shm {
namespace {

constexpr const char* kAlgorithm = "AWS4-HMAC-SHA256";
constexpr size_t kKeysMax = 1000;  // in one answer, as S3 gives them

std::string hmac(std::string_view key, std::string_view data) {
  std::string out(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(data.data()),
       data.size(), reinterpret_cast<unsigned char*>(out.data()), &size);
  out.resize(size);
  return out;
}

std::string time_text(WallTime now) {
  const time_t seconds = now.us / 1'000'000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32] = {};
  strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts);
  return text;
}

// What is between the first <name> and its end, from `at` on, which is moved behind it; false: there is none.
bool take_element(std::string_view xml, std::string_view name, size_t& at, std::string_view& content) {
  const std::string open = "<" + std::string(name) + ">", close = "</" + std::string(name) + ">";
  const size_t begin = xml.find(open, at);
  if (begin == std::string_view::npos) return false;
  const size_t end = xml.find(close, begin + open.size());
  if (end == std::string_view::npos) return false;
  content = xml.substr(begin + open.size(), end - begin - open.size());
  at = end + close.size();
  return true;
}

std::string unescaped(std::string_view text) {
  constexpr std::pair<std::string_view, char> kEntities[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
  std::string out;
  while (!text.empty()) {
    size_t size = 1;
    char one = text.front();
    for (const auto& [name, character] : kEntities) {
      if (!text.starts_with(name)) continue;
      one = character;
      size = name.size();
    }
    out += one;
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace

std::string url_encoded(std::string_view text, bool is_path) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || (is_path && c == '/');
    if (plain) {
      out += c;
      continue;
    }
    constexpr const char* kDigits = "0123456789ABCDEF";
    const auto byte = static_cast<uint8_t>(c);
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

std::string query_of(const S3Request& request) {
  std::string out;
  for (const auto& [name, value] : request.query)
    out += (out.empty() ? "" : "&") + url_encoded(name, false) + "=" + url_encoded(value, false);
  return out;
}

std::vector<std::pair<std::string, std::string>> signed_headers(const S3Request& request, const S3Keys& keys,
                                                                WallTime now) {
  const std::string time = time_text(now), day = time.substr(0, 8);
  std::map<std::string, std::string> headers = request.headers;
  headers["x-amz-date"] = time;
  if (keys.service == "s3") headers["x-amz-content-sha256"] = request.body_sha256;
  std::vector<std::pair<std::string, std::string>> sent(headers.begin(), headers.end());
  headers["host"] = request.host;
  std::string canonical, names;
  for (const auto& [name, value] : headers) {
    canonical += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string what = request.method + "\n" + request.path + "\n" + query_of(request) + "\n" + canonical + "\n" +
                           names + "\n" + request.body_sha256;
  const std::string scope = day + "/" + keys.region + "/" + keys.service + "/aws4_request";
  const std::string to_sign = std::string(kAlgorithm) + "\n" + time + "\n" + scope + "\n" + to_hex(sha256(what));
  std::string key = "AWS4" + keys.secret;
  for (const std::string& part : {day, keys.region, keys.service, std::string("aws4_request")}) key = hmac(key, part);
  sent.emplace_back("Authorization", std::string(kAlgorithm) + " Credential=" + keys.access + "/" + scope +
                                         ", SignedHeaders=" + names + ", Signature=" + to_hex(hmac(key, to_sign)));
  return sent;
}

Result<std::vector<std::string>> listed_keys(std::string_view xml) {
  const auto invalid = [] {
    return fail(Code::kCorruption, "S3_ANSWER_INVALID", "the answer is no list of objects as S3 gives it");
  };
  if (xml.find("<ListBucketResult") == std::string_view::npos ||
      xml.find("</ListBucketResult>") == std::string_view::npos)
    return invalid();
  std::vector<std::string> keys;
  size_t at = 0;
  std::string_view content;
  while (take_element(xml, "Contents", at, content)) {
    size_t inside = 0;
    std::string_view key;
    if (!take_element(content, "Key", inside, key) || key.empty() || keys.size() >= kKeysMax) return invalid();
    keys.push_back(unescaped(key));
  }
  return keys;
}

S3Error error_in(std::string_view xml) {
  S3Error error;
  std::string_view content;
  size_t at = 0;
  if (take_element(xml, "Code", at, content)) error.code = unescaped(content);
  at = 0;
  if (take_element(xml, "Message", at, content)) error.message = unescaped(content);
  return error;
}

}  // namespace uccp::shm
