// Structured logs with the specification's fields: timestamp, level, service, node_id, trace_id, span_id, message,
// fields, caller. One line a record, as JSON or text, to stderr.
//
// Callable from any thread. Values of secrets never come here: what a method option marks as redacted is dropped
// before.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <source_location>
#include <string>
#include <string_view>
#include <variant>

namespace uccp::log {

enum class Level : int { kTrace = 0, kDebug, kInfo, kWarn, kError, kFatal };
enum class Format : int { kJson, kText };
enum class Category : int { kSystem, kAudit, kSecurity, kApplication, kAccess, kPerformance };

struct Field {
  std::string_view name;
  std::variant<std::string_view, int64_t, double, bool> value;

  Field(std::string_view n, std::string_view v) : name(n), value(v) {}
  Field(std::string_view n, const std::string& v) : name(n), value(std::string_view(v)) {}
  Field(std::string_view n, const char* v) : name(n), value(std::string_view(v)) {}
  Field(std::string_view n, double v) : name(n), value(v) {}
  Field(std::string_view n, bool v) : name(n), value(v) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Field(std::string_view n, T v) : name(n), value(static_cast<int64_t>(v)) {}
};

struct Options {
  Level level = Level::kInfo;
  Format format = Format::kJson;
  std::string service = "uccp";
  std::string node_id;
};

// Sets the process-wide options. Not thread safe against records being written: call it at start-up.
void configure(Options options);
// Changes the level while records are being written.
void set_level(Level level);
// Errors are reported by returning false: the name is none of TRACE DEBUG INFO WARN ERROR FATAL, in any case.
bool parse_level(std::string_view name, Level& level);
bool enabled(Level level);

struct Record {
  Level level;
  std::string_view message;
  std::initializer_list<Field> fields;
  std::string_view trace_id = {};
  std::string_view span_id = {};
  Category category = Category::kSystem;
};
void write(const Record& record, std::source_location where = std::source_location::current());

inline void debug(std::string_view message, std::initializer_list<Field> fields = {},
                  std::source_location where = std::source_location::current()) {
  if (enabled(Level::kDebug)) write({Level::kDebug, message, fields}, where);
}
inline void info(std::string_view message, std::initializer_list<Field> fields = {},
                 std::source_location where = std::source_location::current()) {
  if (enabled(Level::kInfo)) write({Level::kInfo, message, fields}, where);
}
inline void warn(std::string_view message, std::initializer_list<Field> fields = {},
                 std::source_location where = std::source_location::current()) {
  if (enabled(Level::kWarn)) write({Level::kWarn, message, fields}, where);
}
inline void error(std::string_view message, std::initializer_list<Field> fields = {},
                  std::source_location where = std::source_location::current()) {
  if (enabled(Level::kError)) write({Level::kError, message, fields}, where);
}

// The line that `write` would print, without the newline. `wall_us` is the time stamp. For tests and other sinks.
std::string format_record(const Record& record, const std::source_location& where, int64_t wall_us);
// Replaces the sink (a test collects lines; the simulator stamps virtual time). An empty function restores stderr.
using Sink = void (*)(std::string_view line);
void set_sink(Sink sink);

}  // namespace uccp::log
