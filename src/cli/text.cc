#include "cli/text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace uccp::cli {
namespace {

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
char lower(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
bool is_vowel(char c) { return std::string_view("aeiou").find(c) != std::string_view::npos; }

// Insertions, deletions, changes and swaps of neighbours (optimal string alignment).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> rows(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        rows[i][j] = i + j;
        continue;
      }
      const size_t change = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      rows[i][j] = std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
  }
  return rows[a.size()][b.size()];
}

}  // namespace

std::string to_kebab(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (is_upper(c)) {
      if (!out.empty() && out.back() != '-' && out.back() != '.') out.push_back('-');
      out.push_back(lower(c));
    } else {
      out.push_back(c == '_' ? '-' : c);
    }
  }
  return out;
}

std::string to_heading(std::string_view name) {
  std::string out = to_kebab(name);
  std::ranges::replace(out, '.', '-');
  for (char& c : out) c = upper(c);
  return out;
}

std::string singular(std::string_view word) {
  if (word.ends_with("status")) return {};
  if (word.ends_with("ies")) return std::string(word.substr(0, word.size() - 3)) + "y";
  if (word.ends_with("ches") || word.ends_with("sses")) return std::string(word.substr(0, word.size() - 2));
  if (word.size() > 2 && word.ends_with('s') && !word.ends_with("ss"))
    return std::string(word.substr(0, word.size() - 1));
  return {};
}

std::string plural(std::string_view word) {
  if (word.ends_with("ch") || word.ends_with('s')) return std::string(word) + "es";
  if (word.size() > 1 && word.ends_with('y') && !is_vowel(word[word.size() - 2])) {
    return std::string(word.substr(0, word.size() - 1)) + "ies";
  }
  return std::string(word) + "s";
}

std::string past(std::string_view verb) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kIrregular = {{
      {"set", "set"},
      {"put", "put"},
      {"cancel", "cancelled"},
      {"break", "broken"},
      {"heartbeat", "kept alive"},
      {"transfer", "transferred"},
      {"drain", "draining"},
      {"call", "submitted"},
      {"count", "counted down"},
      {"wait", "passed"},
      {"try", "acquired"},
      {"submit", "submitted"},
  }};
  const std::string_view word = verb.substr(0, verb.find('-'));
  for (const auto& [base, form] : kIrregular) {
    if (word == base) return std::string(form);
  }
  if (word.ends_with('e')) return std::string(word) + "d";
  return std::string(word) + "ed";
}

std::string nearest(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = candidate.starts_with(word) && word.size() >= 3 ? 1 : edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string printable(std::string_view text, Breaks breaks) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_break = c == '\n' || c == '\t';
    if (is_break && breaks == Breaks::kKeep) {
      out.push_back(c);
    } else if (is_break) {
      out.push_back(' ');
    } else if (byte < 0x20 || byte == 0x7f) {
      out.push_back('?');
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string wrapped(std::string_view text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  while (!text.empty()) {
    const size_t blank = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, blank);
    if (column > indent && column + 1 + display_width(word) > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out.push_back(' ');
      ++column;
    }
    out += word;
    column += display_width(word);
    text.remove_prefix(std::min(blank + 1, text.size()));
  }
  return out;
}

Result<std::vector<std::string>> shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool open = false;  // a word has begun, though it may be empty
  for (size_t at = 0; at < line.size(); ++at) {
    const char c = line[at];
    if (c == '\\' && quote != '\'' && at + 1 < line.size()) {
      word.push_back(line[++at]);
      open = true;
    } else if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else {
        word.push_back(c);
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      open = true;
    } else if (c == '#' && !open) {
      break;
    } else if (c == ' ' || c == '\t') {
      if (open) words.push_back(std::move(word));
      word.clear();
      open = false;
    } else {
      word.push_back(c);
      open = true;
    }
  }
  if (quote != 0) return fail(Code::kInvalid, "USAGE", std::string("a quote is not closed: ") + quote);
  if (open) words.push_back(std::move(word));
  return words;
}

std::string join(std::span<const std::string> parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

size_t display_width(std::string_view text) {
  size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0) == 0x80 ? 0 : 1;
  return width;
}

std::string padded(std::string_view text, size_t width) {
  std::string out(text);
  const size_t now = display_width(text);
  if (now < width) out.append(width - now, ' ');
  return out;
}

}  // namespace uccp::cli
