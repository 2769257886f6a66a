// Rendering: answers as tables, JSON, YAML and names. Works on the JSON form of messages, never on compiled types.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/method.h"
#include "cli/paint.h"
#include "cli/settings.h"

namespace uccp::cli {

// Columns of a table of one message type.
class Columns {
 public:
  // The columns of the command; with Format::kWide the wide ones as well. `now_us` is what ages are counted from.
  Columns(const call::MessagePlan& item, const call::CliCommand& command, Format format, int64_t now_us);

  bool empty() const { return columns_.empty(); }
  std::vector<std::string> headings() const;
  // One cell a column; never empty, without blanks except in the last one.
  std::vector<std::string> cells(std::string_view item_json) const;
  // The values as they are, for programs: times and sizes in full, nothing for what is absent.
  std::vector<std::string> values(std::string_view item_json) const;

 private:
  struct Column {
    std::string path;     // "resources.available.cpu"
    std::string pointer;  // "/resources/available/cpu"
    std::string heading;
    const call::FieldPlan* leaf = nullptr;
    bool full_time = false;  // a time stamp instead of an age
  };
  std::string cell(const Column& column, bool last, const void* value) const;

  std::vector<Column> columns_;
  int64_t now_us_ = 0;
};

// Left-aligned columns, three blanks between them, a line break behind each row.
// With `paint` headings and states have their colors.
std::string render_table(const std::vector<std::vector<std::string>>& rows, const Paint* paint = nullptr);

// One record of comma-separated values, quoted as in RFC 4180, with a line break.
std::string csv_record(const std::vector<std::string>& values);

// "12s", "5m", "3h", "2d"; times to come with a plus sign.
std::string age_text(int64_t seconds);
// "64Mi", "1.5Gi", "512".
std::string byte_size_text(uint64_t bytes);

// The name of a resource: its `id`, else `name`, `key`, or nothing.
std::string resource_id(const call::MessagePlan& plan, std::string_view wire);

// JSON of a message as the other doors answer it; compact or with two blanks a level.
enum class Layout : uint8_t { kCompact, kPretty };
Result<std::string> message_json(const call::MessagePlan& plan, std::string_view wire, Layout layout);
// The same with numbers and bools that are zero, for tables and plain views.
Result<std::string> message_json_full(const call::MessagePlan& plan, std::string_view wire);
// A pretty JSON array of pretty values.
std::string json_array(const std::vector<std::string>& pretty_items);

}  // namespace uccp::cli
