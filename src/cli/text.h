// Words: between the contract's names, flag names and what people read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::cli {

// "serviceName", "service_name" -> "service-name"; dots stay.
std::string to_kebab(std::string_view name);
// "create_time", "createTime" -> "CREATE-TIME".
std::string to_heading(std::string_view name);
// "labels" -> "label", "dependencies" -> "dependency"; empty if there is no other form.
std::string singular(std::string_view word);
// "task" -> "tasks", "latch" -> "latches".
std::string plural(std::string_view word);
// "cancel" -> "cancelled", "set-priority" -> "set".
std::string past(std::string_view verb);
// The candidate nearest to `word`, if it is near enough to be a slip; else empty.
std::string nearest(std::string_view word, std::span<const std::string> candidates);
// Without control characters: output of a server must not steer a terminal. Line breaks stay if `lines`.
enum class Breaks : uint8_t { kDrop, kKeep };
std::string printable(std::string_view text, Breaks breaks = Breaks::kDrop);
// Breaks `text` into lines up to column `width`; all but the first begin at column `indent`, where the first begins
// too.
std::string wrapped(std::string_view text, size_t indent, size_t width);
// A line as words: blanks part them, '...' and "..." keep them, \ takes the next character as it is (in "..." too), #
// at the beginning of a word ends the line. Errors: invalid USAGE for a quote that is not closed.
Result<std::vector<std::string>> shell_words(std::string_view line);
std::string join(std::span<const std::string> parts, std::string_view separator);
// Pads with spaces to `width` characters (code points).
std::string padded(std::string_view text, size_t width);
size_t display_width(std::string_view text);

}  // namespace uccp::cli
