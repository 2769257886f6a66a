#include "base/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <strings.h>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>

#include "base/json.h"

namespace uccp::log {
namespace {

constexpr std::array<std::string_view, 6> kLevelNames = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
constexpr std::array<std::string_view, 6> kCategoryNames = {"system",      "audit",  "security",
                                                            "application", "access", "performance"};

Options g_options;
std::atomic<Level> g_level{Level::kInfo};
Sink g_sink = nullptr;

std::string iso8601(int64_t wall_us) {
  const std::time_t seconds = wall_us / 1'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, wall_us % 1'000'000);
}

std::string_view base_name(std::string_view path) {
  const size_t source = path.rfind("src/");
  return source == std::string_view::npos ? path : path.substr(source + 4);
}

void append_value(JsonWriter& json, const Field& field) {
  json.key(field.name);
  std::visit([&](const auto& value) { json.value(value); }, field.value);
}

std::string format_json(const Record& record, const std::source_location& where, int64_t wall_us) {
  JsonWriter json;
  json.begin_object();
  json.key("timestamp").value(iso8601(wall_us));
  json.key("level").value(kLevelNames[static_cast<size_t>(record.level)]);
  json.key("service").value(g_options.service);
  json.key("node_id").value(g_options.node_id);
  if (!record.trace_id.empty()) json.key("trace_id").value(record.trace_id);
  if (!record.span_id.empty()) json.key("span_id").value(record.span_id);
  json.key("category").value(kCategoryNames[static_cast<size_t>(record.category)]);
  json.key("message").value(record.message);
  if (record.fields.size() > 0) {
    json.key("fields").begin_object();
    for (const Field& field : record.fields) append_value(json, field);
    json.end_object();
  }
  json.key("caller").value(fmt::format("{}:{}", base_name(where.file_name()), where.line()));
  json.end_object();
  return json.take();
}

std::string format_text(const Record& record, const std::source_location& where, int64_t wall_us) {
  std::string line =
      fmt::format("{} {:5} {}", iso8601(wall_us), kLevelNames[static_cast<size_t>(record.level)], record.message);
  for (const Field& field : record.fields) {
    std::visit([&](const auto& value) { fmt::format_to(std::back_inserter(line), " {}={}", field.name, value); },
               field.value);
  }
  if (!record.trace_id.empty()) line.append(" trace_id=").append(record.trace_id);
  // A message may carry text from outside; a record stays one line.
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return line;
}

}  // namespace

void configure(Options options) {
  g_level.store(options.level);
  g_options = std::move(options);
}

void set_level(Level level) { g_level.store(level); }

bool parse_level(std::string_view name, Level& level) {
  for (size_t i = 0; i < kLevelNames.size(); ++i) {
    if (name.size() == kLevelNames[i].size() && strncasecmp(name.data(), kLevelNames[i].data(), name.size()) == 0) {
      level = static_cast<Level>(i);
      return true;
    }
  }
  return false;
}

bool enabled(Level level) { return level >= g_level.load(std::memory_order_relaxed); }

std::string format_record(const Record& record, const std::source_location& where, int64_t wall_us) {
  return g_options.format == Format::kJson ? format_json(record, where, wall_us) : format_text(record, where, wall_us);
}

void set_sink(Sink sink) { g_sink = sink; }

void write(const Record& record, std::source_location where) {
  if (!enabled(record.level)) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string line = format_record(record, where, std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  if (g_sink != nullptr) return g_sink(line);
  line.push_back('\n');
  // One write a record keeps lines of several threads and processes apart.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace uccp::log
