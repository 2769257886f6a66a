#include "cli/line_editor.h"

#include <editline/readline.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

namespace uccp::cli {
namespace {

constexpr int kHistoryMax = 1000;
constexpr size_t kLineBytesMax = 1 << 20;

// The library calls back without a context.
const LineInput* now_reading = nullptr;
std::vector<std::string> candidates;
size_t next_candidate = 0;

char* generate(const char*, int state) {
  if (state == 0) next_candidate = 0;
  return next_candidate < candidates.size() ? strdup(candidates[next_candidate++].c_str()) : nullptr;
}

char** attempt(const char* text, int, int end) {
  rl_attempted_completion_over = 1;
  if (now_reading == nullptr) return nullptr;
  candidates = now_reading->complete(std::string(rl_line_buffer, static_cast<size_t>(end)));
  const bool open = candidates.size() == 1 && candidates.front().ends_with('=');
  rl_completion_append_character = open ? '\0' : ' ';
  return rl_completion_matches(text, generate);
}

void begin(const LineInput& input) {
  static bool begun = false;
  now_reading = &input;
  if (begun) return;
  begun = true;
  rl_readline_name = "uccp-cli";
  rl_initialize();
  static char breaks[] = " \t\n";
  rl_completer_word_break_characters = breaks;
  rl_attempted_completion_function = attempt;
  using_history();
  stifle_history(kHistoryMax);
  if (!input.history_file.empty()) read_history(input.history_file.c_str());
}

void remember(const std::string& line, const LineInput& input) {
  if (line.find_first_not_of(" \t") == std::string::npos || !input.keep(line)) return;
  add_history(line.c_str());
  if (input.history_file.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(input.history_file).parent_path(), ignored);
  const mode_t before = ::umask(0077);
  write_history(input.history_file.c_str());
  ::umask(before);
}

std::optional<std::string> read_plain() {
  std::string line;
  for (char c = 0; line.size() < kLineBytesMax;) {
    const ssize_t size = ::read(STDIN_FILENO, &c, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return line.empty() ? std::nullopt : std::optional<std::string>(line);
    if (c == '\n') return line;
    line.push_back(c);
  }
  return line;
}

}  // namespace

std::optional<std::string> read_line(const std::string& prompt, const LineInput& input) {
  if (::isatty(STDIN_FILENO) != 1) return read_plain();
  begin(input);
  char* typed = readline(prompt.c_str());
  if (typed == nullptr) {
    [[maybe_unused]] const ssize_t written = ::write(STDOUT_FILENO, "\n", 1);
    return std::nullopt;
  }
  std::string line(typed);
  std::free(typed);
  remember(line, input);
  return line;
}

}  // namespace uccp::cli
