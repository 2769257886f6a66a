#include "base/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/check.h"

namespace uccp {
namespace {

// One scrape at a time, of all registries: while one runs, the callbacks are not in their families.
std::mutex scrapes;

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '\\') out.append("\\\\");
    else if (c == '"') out.append("\\\"");
    else if (c == '\n') out.append("\\n");
    else out.push_back(c);
  }
  return out;
}

std::string label_text(const Labels& labels, std::string_view le = {}) {
  if (labels.empty() && le.empty()) return {};
  std::string out = "{";
  for (const auto& [name, value] : labels) {
    if (out.size() > 1) out.push_back(',');
    out.append(name).append("=\"").append(escape(value)).append("\"");
  }
  if (!le.empty()) out.append(out.size() > 1 ? "," : "").append("le=\"").append(le).append("\"");
  return out + "}";
}

template <typename Map, typename Make>
auto& find_or_make(Map& map, const Labels& labels, Make make) {
  auto it = map.find(labels);
  if (it == map.end()) {
    const Labels key = map.size() < MetricsRegistry::kLabelSetsMax ? labels : Labels{{"overflow", "true"}};
    it = map.find(key);
    if (it == map.end()) it = map.emplace(key, make()).first;
  }
  return *it->second;
}

}  // namespace

Histogram::Histogram(const std::vector<double>& bounds)
    : bounds_(bounds), buckets_(std::make_unique<std::atomic<uint64_t>[]>(bounds.size() + 1)) {
  UCCP_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()), "histogram bounds grow");
}

void Histogram::observe(double v) {
  const size_t bucket = std::lower_bound(bounds_.begin(), bounds_.end(), v) - bounds_.begin();
  buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(v, std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) total += buckets_[i].load(std::memory_order_relaxed);
  return total;
}

double Histogram::quantile(double q) const {
  const auto rank = static_cast<uint64_t>(q * static_cast<double>(count()));
  uint64_t seen = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    seen += buckets_[i].load(std::memory_order_relaxed);
    if (seen > 0 && seen >= rank) return bounds_[i];
  }
  return count() > 0 ? bounds_.back() : 0;
}

const std::vector<double>& MetricsRegistry::seconds_buckets() {
  static const std::vector<double> buckets = {0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                              0.025,   0.05,   0.1,     0.25,   0.5,   1,      2.5,   10};
  return buckets;
}

MetricsRegistry::Family& MetricsRegistry::family(std::string_view name, std::string_view help, Kind kind) {
  auto it = families_.find(name);
  if (it == families_.end()) {
    it = families_.emplace(std::string(name), Family{}).first;
    it->second.kind = kind;
    it->second.help = help;
  }
  UCCP_CHECK(it->second.kind == kind, "a metric name is used with one kind");
  return it->second;
}

Counter& MetricsRegistry::counter(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(mutex_);
  return find_or_make(family(name, help, Kind::kCounter).counters, labels, [] { return std::make_unique<Counter>(); });
}

Gauge& MetricsRegistry::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  std::lock_guard lock(mutex_);
  return find_or_make(family(name, help, Kind::kGauge).gauges, labels, [] { return std::make_unique<Gauge>(); });
}

Histogram& MetricsRegistry::histogram(std::string_view name, std::string_view help, const Labels& labels,
                                      const std::vector<double>& bounds) {
  std::lock_guard lock(mutex_);
  return find_or_make(family(name, help, Kind::kHistogram).histograms, labels,
                      [&] { return std::make_unique<Histogram>(bounds); });
}

void MetricsRegistry::callback(std::string_view name, std::string_view help, std::move_only_function<double()> read) {
  std::lock_guard lock(mutex_);
  family(name, help, Kind::kCallback).read = std::move(read);
}

std::string MetricsRegistry::text() {
  static constexpr std::string_view kKindNames[] = {"counter", "gauge", "histogram", "gauge"};
  std::lock_guard one_at_a_time(scrapes);
  // Callbacks run without the registry's lock: they wait for locks under which others use the registry.
  std::map<std::string, std::move_only_function<double()>> callbacks;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, family] : families_) {
      if (family.read) callbacks.emplace(name, std::exchange(family.read, nullptr));
    }
  }
  std::map<std::string, double> answers;
  for (auto& [name, read] : callbacks) answers.emplace(name, read());

  std::lock_guard lock(mutex_);
  for (auto& [name, read] : callbacks) {
    // Not if another one was set meanwhile.
    if (Family& family = families_.find(name)->second; !family.read) family.read = std::move(read);
  }
  std::string out;
  auto to = std::back_inserter(out);
  for (auto& [name, family] : families_) {
    fmt::format_to(to, "# HELP {} {}\n# TYPE {} {}\n", name, family.help, name,
                   kKindNames[static_cast<size_t>(family.kind)]);
    for (auto& [labels, counter] : family.counters) {
      fmt::format_to(to, "{}{} {}\n", name, label_text(labels), counter->value());
    }
    for (auto& [labels, gauge] : family.gauges) {
      fmt::format_to(to, "{}{} {}\n", name, label_text(labels), gauge->value());
    }
    for (auto& [labels, histogram] : family.histograms) {
      uint64_t seen = 0;
      for (size_t i = 0; i <= histogram->bounds_.size(); ++i) {
        seen += histogram->buckets_[i].load(std::memory_order_relaxed);
        const std::string le = i < histogram->bounds_.size() ? fmt::format("{}", histogram->bounds_[i]) : "+Inf";
        fmt::format_to(to, "{}_bucket{} {}\n", name, label_text(labels, le), seen);
      }
      fmt::format_to(to, "{}_sum{} {}\n{}_count{} {}\n", name, label_text(labels), histogram->sum(), name,
                     label_text(labels), seen);
    }
    if (const auto answer = answers.find(name); answer != answers.end()) {
      fmt::format_to(to, "{} {}\n", name, answer->second);
    }
  }
  return out;
}

double MetricsRegistry::value(std::string_view name, const Labels& labels) {
  std::lock_guard one_at_a_time(scrapes);
  std::unique_lock lock(mutex_);
  const auto it = families_.find(name);
  if (it == families_.end()) return 0;
  Family& family = it->second;
  if (auto c = family.counters.find(labels); c != family.counters.end()) return static_cast<double>(c->second->value());
  if (auto g = family.gauges.find(labels); g != family.gauges.end()) return g->second->value();
  if (!family.read) return 0;
  auto read = std::exchange(family.read, nullptr);
  lock.unlock();
  const double answer = read();
  lock.lock();
  if (!family.read) family.read = std::move(read);
  return answer;
}

}  // namespace uccp
