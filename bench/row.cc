#include "bench/row.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"

namespace uccp::bench {
namespace {

std::optional<double> median_of(const std::vector<Sample>& samples, bool ours) {
  std::vector<double> values;
  for (const Sample& sample : samples) {
    if (sample.ours == ours) values.push_back(sample.value);
  }
  if (values.empty()) return std::nullopt;
  return median(std::move(values));
}

// Four digits say all that a benchmark can.
std::string short_number(double value) {
  if (std::fabs(value) >= 1000) return fmt::format("{:.0f}", value);
  return fmt::format("{:.4g}", value);
}

void put(JsonWriter& json, std::string_view name, const std::optional<double>& value) {
  json.key(name);
  if (value && std::isfinite(*value)) json.raw(short_number(*value));
  else json.null();
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string Goal::to_string(const std::string& unit) const {
  if (of == Of::kNothing) return "none, a reference";
  const char* sign = better == Better::kHigher ? ">=" : "<";
  if (of == Of::kRatio) return fmt::format("ratio {} {}", sign, limit);
  return unit.empty() ? fmt::format("{} {}", sign, limit) : fmt::format("{} {} {}", sign, limit, unit);
}

std::optional<double> Row::ours() const { return median_of(samples, true); }
std::optional<double> Row::peer() const { return median_of(samples, false); }

std::optional<double> Row::ratio() const {
  const auto a = ours();
  const auto b = peer();
  if (!a || !b) return std::nullopt;
  const double top = better == Better::kHigher ? *a : *b;
  const double bottom = better == Better::kHigher ? *b : *a;
  if (bottom <= 0) return std::nullopt;
  return top / bottom;
}

bool Row::met() const {
  if (!problem.empty() || !ours() || (peer_required && !peer())) return false;
  if (durable && (!syncs_ours || *syncs_ours <= 0)) return false;
  if (durable && peer_required && (!syncs_peer || *syncs_peer <= 0)) return false;
  if (goal.of == Goal::Of::kNothing) return true;
  const auto value = goal.of == Goal::Of::kOurs ? ours() : ratio();
  if (!value) return false;
  return goal.better == Better::kHigher ? *value >= goal.limit : *value < goal.limit;
}

std::string Row::to_json() const {
  JsonWriter json;
  json.begin_object().key("metric").value(metric).key("unit").value(unit);
  put(json, "ours", ours());
  put(json, "peer", peer());
  json.key("peerName");
  if (peer_name.empty()) json.null();
  else json.value(peer_name);
  json.key("peerVersion");
  if (peer_version.empty()) json.null();
  else json.value(peer_version);
  json.key("settings").value(settings);
  put(json, "ratio", ratio());
  json.key("goal").value(goal.to_string(unit)).key("met").value(met());
  json.key("samples").begin_array();
  for (const Sample& sample : samples) {
    json.begin_object().key("side").value(sample.ours ? "ours" : "peer");
    put(json, "value", sample.value);
    json.end_object();
  }
  json.end_array().key("verified").value(verified).key("durable").value(durable);
  json.key("syncsPerOp").begin_object();
  put(json, "ours", syncs_ours);
  put(json, "peer", syncs_peer);
  json.end_object().key("details").begin_object();
  for (const auto& [name, value] : details) put(json, name, value);
  json.end_object();
  if (!problem.empty()) json.key("problem").value(problem);
  return json.end_object().take();
}

std::string Row::to_table_line() const {
  const auto text = [&](const std::optional<double>& value) { return value ? short_number(*value) : std::string("-"); };
  std::string line = fmt::format("{:<44} {:>10} {:<4} {:>10} {:>6}  {:<22} {}", metric, text(ours()), unit,
                                 text(peer()), text(ratio()), goal.to_string(unit), met() ? "met" : "NOT MET");
  if (durable) line += fmt::format("  syncs/op {} {}", text(syncs_ours), text(syncs_peer));
  if (!problem.empty()) line += "  (" + problem + ")";
  line += "\n   ";
  for (const auto& [name, value] : details) line += fmt::format(" {}={}", name, short_number(value));
  return line;
}

}  // namespace uccp::bench
