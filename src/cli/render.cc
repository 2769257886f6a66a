#include "cli/render.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "call/json_codec.h"
#include "call/json_codec_text.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

constexpr std::string_view kNone = "<none>";
constexpr int64_t kUsPerSecond = 1'000'000;
constexpr size_t kColumnGap = 3;

bool is_time(const call::FieldPlan& field) {
  return field.kind == call::Kind::kMessage && field.message != nullptr &&
         field.message->well_known == call::WellKnown::kTimestamp;
}

std::string scalar_text(const element& value) {
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

std::string composite_text(const element& value) {
  std::vector<std::string> parts;
  simdjson::dom::array array;
  simdjson::dom::object object;
  if (value.get(array) == simdjson::SUCCESS) {
    for (const element item : array) {
      if (item.is_object() || item.is_array()) return std::to_string(array.size());
      parts.push_back(scalar_text(item));
    }
  } else if (value.get(object) == simdjson::SUCCESS) {
    for (const auto& member : object) {
      parts.push_back(std::string(member.key) + "=" +
                      (member.value.is_object() || member.value.is_array() ? simdjson::minify(member.value)
                                                                           : scalar_text(member.value)));
    }
  }
  return join(parts, ",");
}

std::string heading_of(std::string_view path) { return to_heading(path.substr(path.rfind('.') + 1)); }

}  // namespace

Columns::Columns(const call::MessagePlan& item, const call::CliCommand& command, Format format, int64_t now_us)
    : now_us_(now_us) {
  const auto add = [&](const std::string& path, bool wide) {
    Column column{.path = path, .pointer = "/" + path, .heading = heading_of(path)};
    std::ranges::replace(column.pointer, '.', '/');
    if (Result<call::FieldPath> compiled = call::FieldPath::compile(item, path)) column.leaf = &compiled->leaf();
    column.full_time = wide;
    if (column.heading == "CREATE-TIME" && format != Format::kCsv) column.heading = "AGE";
    columns_.push_back(std::move(column));
  };
  for (const std::string& path : command.columns) add(path, false);
  if (format == Format::kWide || format == Format::kCsv) {
    for (const std::string& path : command.wide_columns) add(path, true);
  }
  // All found before the first is renamed: of two that are equal both need their whole path.
  std::vector<Column*> ambiguous;
  for (Column& column : columns_) {
    const auto same = [&](const Column& other) { return &other != &column && other.heading == column.heading; };
    if (std::ranges::any_of(columns_, same)) ambiguous.push_back(&column);
  }
  for (Column* column : ambiguous) column->heading = to_heading(column->path);
}

std::vector<std::string> Columns::headings() const {
  std::vector<std::string> headings;
  for (const Column& column : columns_) headings.push_back(column.heading);
  return headings;
}

std::string Columns::cell(const Column& column, bool last, const void* opaque) const {
  const element& value = *static_cast<const element*>(opaque);
  std::string text;
  uint64_t number = 0;
  call::SecondsNanos time;
  if (value.is_object() || value.is_array()) {
    text = composite_text(value);
  } else if (column.leaf != nullptr && column.leaf->byte_size && value.get(number) == simdjson::SUCCESS) {
    text = byte_size_text(number);
  } else if (column.leaf != nullptr && is_time(*column.leaf) && !column.full_time &&
             call::parse_timestamp(scalar_text(value), time)) {
    text = age_text(now_us_ / kUsPerSecond - time.seconds);
  } else {
    text = value.is_null() ? "" : scalar_text(value);
  }
  text = printable(text);
  // One cell is one word for awk and cut; free text has the end of the line.
  if (!last) std::ranges::replace(text, ' ', '_');
  return text.empty() ? std::string(kNone) : text;
}

std::vector<std::string> Columns::cells(std::string_view item_json) const {
  simdjson::dom::parser parser;
  element root;
  const bool ok = parser.parse(simdjson::padded_string(item_json)).get(root) == simdjson::SUCCESS;
  std::vector<std::string> cells;
  for (const Column& column : columns_) {
    element value;
    const bool found = ok && root.at_pointer(column.pointer).get(value) == simdjson::SUCCESS;
    cells.push_back(found ? cell(column, &column == &columns_.back(), &value) : std::string(kNone));
  }
  return cells;
}

std::vector<std::string> Columns::values(std::string_view item_json) const {
  simdjson::dom::parser parser;
  element root;
  const bool ok = parser.parse(simdjson::padded_string(item_json)).get(root) == simdjson::SUCCESS;
  std::vector<std::string> values;
  for (const Column& column : columns_) {
    element value;
    const bool found = ok && root.at_pointer(column.pointer).get(value) == simdjson::SUCCESS && !value.is_null();
    if (!found) {
      values.emplace_back();
    } else {
      values.push_back(value.is_object() || value.is_array() ? composite_text(value) : scalar_text(value));
    }
  }
  return values;
}

std::string csv_record(const std::vector<std::string>& values) {
  std::string out;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.push_back(',');
    const std::string& value = values[i];
    if (value.find_first_of(",\"\r\n") == std::string::npos) {
      out += value;
      continue;
    }
    out.push_back('"');
    for (const char c : value) {
      if (c == '"') out.push_back('"');
      out.push_back(c);
    }
    out.push_back('"');
  }
  return out + "\n";
}

std::string render_table(const std::vector<std::vector<std::string>>& rows, const Paint* paint) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string out;
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool heading = &row == &rows.front();
      out += paint == nullptr ? row[i] : heading ? paint->heading(row[i]) : paint->cell(row[i]);
      if (i + 1 < row.size()) out.append(widths[i] + kColumnGap - display_width(row[i]), ' ');
    }
    out.push_back('\n');
  }
  return out;
}

std::string age_text(int64_t seconds) {
  const std::string sign = seconds < 0 ? "+" : "";
  const int64_t s = std::abs(seconds);
  if (s < 120) return fmt::format("{}{}s", sign, s);
  if (s < 2 * 3600) return fmt::format("{}{}m", sign, s / 60);
  if (s < 2 * 86400) return fmt::format("{}{}h", sign, s / 3600);
  return fmt::format("{}{}d", sign, s / 86400);
}

std::string byte_size_text(uint64_t bytes) {
  static constexpr std::array<std::string_view, 7> kUnits = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  size_t unit = 0;
  auto amount = static_cast<double>(bytes);
  while (amount >= 1024 && unit + 1 < kUnits.size()) {
    amount /= 1024;
    ++unit;
  }
  const double rounded = std::round(amount * 10) / 10;
  if (rounded == std::floor(rounded)) return fmt::format("{}{}", static_cast<uint64_t>(rounded), kUnits[unit]);
  return fmt::format("{:.1f}{}", rounded, kUnits[unit]);
}

std::string resource_id(const call::MessagePlan& plan, std::string_view wire) {
  for (const std::string_view name : {"id", "name", "key", "group"}) {
    const call::FieldPlan* field = plan.by_name(name);
    if (field == nullptr || field->kind != call::Kind::kString || field->shape != call::Shape::kSingular) continue;
    const Result<call::FieldPath> path = call::FieldPath::compile(plan, name);
    if (!path) continue;
    const std::string_view id = call::get_string(*path, wire).value_or("");
    if (!id.empty()) return std::string(id);
  }
  return {};
}

Result<std::string> message_json(const call::MessagePlan& plan, std::string_view wire, Layout layout) {
  return call::wire_to_json(plan, wire, {.pretty = layout == Layout::kPretty});
}

Result<std::string> message_json_full(const call::MessagePlan& plan, std::string_view wire) {
  return call::wire_to_json(plan, wire, {.emit = call::Emit::kNumbers});
}

std::string json_array(const std::vector<std::string>& pretty_items) {
  if (pretty_items.empty()) return "[]\n";
  std::string out = "[";
  for (size_t i = 0; i < pretty_items.size(); ++i) {
    out += i == 0 ? "\n  " : ",\n  ";
    // JSON strings hold no raw line breaks, so that every one here is layout.
    for (const char c : pretty_items[i]) {
      out.push_back(c);
      if (c == '\n') out += "  ";
    }
  }
  return out + "\n]\n";
}

}  // namespace uccp::cli
