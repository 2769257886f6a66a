#include "base/json.h"

#include <charconv>
#include <cmath>

#include "base/bytes.h"

namespace uccp {
namespace {

bool is_plain(char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; }

void append_escaped(std::string& out, char c) {
  static constexpr char digits[] = "0123456789abcdef";
  switch (c) {
    case '"': out.append("\\\""); return;
    case '\\': out.append("\\\\"); return;
    case '\n': out.append("\\n"); return;
    case '\r': out.append("\\r"); return;
    case '\t': out.append("\\t"); return;
    default:
      out.append("\\u00");
      out.push_back(digits[static_cast<unsigned char>(c) >> 4]);
      out.push_back(digits[c & 15]);
  }
}

// Length of the well-formed UTF-8 character at the start of `text`, or 0.
size_t utf8_length(std::string_view text) {
  const auto c = static_cast<unsigned char>(text[0]);
  const size_t size = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
  return size <= text.size() && is_utf8(text.substr(0, size)) ? size : 0;
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  const bool valid = is_utf8(text);
  out.push_back('"');
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    if (!is_plain(text[i])) {
      out.append(text.substr(start, i - start));
      append_escaped(out, text[i]);
      start = ++i;
      continue;
    }
    if (valid) {
      ++i;
      continue;
    }
    if (const size_t size = utf8_length(text.substr(i)); size > 0) {
      i += size;
      continue;
    }
    out.append(text.substr(start, i - start));
    out.append("\xef\xbf\xbd");
    start = ++i;
  }
  out.append(text.substr(start));
  out.push_back('"');
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  append_json_string(out_, name);
  out_.push_back(':');
  need_comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view v) {
  separate();
  append_json_string(out_, v);
  return *this;
}

JsonWriter& JsonWriter::value(int64_t v) {
  separate();
  char buffer[24];
  out_.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), v).ptr);
  return *this;
}

JsonWriter& JsonWriter::value(uint64_t v) {
  separate();
  char buffer[24];
  out_.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), v).ptr);
  return *this;
}

JsonWriter& JsonWriter::value(double v) {
  if (std::isnan(v)) return value("NaN");
  if (std::isinf(v)) return value(v > 0 ? "Infinity" : "-Infinity");
  separate();
  char buffer[32];
  out_.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), v).ptr);
  return *this;
}

JsonWriter& JsonWriter::value(bool v) {
  separate();
  out_.append(v ? "true" : "false");
  return *this;
}

JsonWriter& JsonWriter::null() {
  separate();
  out_.append("null");
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  separate();
  out_.append(json);
  return *this;
}

}  // namespace uccp
