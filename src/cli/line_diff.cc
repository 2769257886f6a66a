#include "cli/line_diff.h"

#include <algorithm>
#include <vector>

namespace uccp::cli {
namespace {

struct Line {
  char mark;
  std::string_view text;
};

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// Longest common subsequence; lengths of what is common from (i, j) on.
std::vector<Line> merged(const std::vector<std::string_view>& a, const std::vector<std::string_view>& b) {
  std::vector<std::vector<size_t>> common(a.size() + 1, std::vector<size_t>(b.size() + 1, 0));
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t j = b.size(); j-- > 0;) {
      common[i][j] = a[i] == b[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
    }
  }
  std::vector<Line> out;
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      out.push_back({' ', a[i++]});
      ++j;
    } else if (i < a.size() && (j == b.size() || common[i + 1][j] >= common[i][j + 1])) {
      out.push_back({'-', a[i++]});
    } else {
      out.push_back({'+', b[j++]});
    }
  }
  return out;
}

}  // namespace

std::string line_diff(std::string_view before, std::string_view after, size_t context) {
  if (before == after) return {};
  const std::vector<Line> lines = merged(lines_of(before), lines_of(after));
  std::vector<bool> shown(lines.size(), false);
  for (size_t at = 0; at < lines.size(); ++at) {
    if (lines[at].mark == ' ') continue;
    const size_t from = at - std::min(at, context);
    const size_t to = std::min(at + context + 1, lines.size());
    for (size_t near = from; near < to; ++near) shown[near] = true;
  }
  std::string out;
  bool skipped = false;
  for (size_t at = 0; at < lines.size(); ++at) {
    if (!shown[at]) {
      if (!skipped) out += "@@\n";
      skipped = true;
      continue;
    }
    skipped = false;
    out.push_back(lines[at].mark);
    out += lines[at].text;
    out.push_back('\n');
  }
  return out;
}

}  // namespace uccp::cli
