// The metrics registry: counters, gauges and histograms with labels, written in the Prometheus text format.
//
// Families are registered at start-up and live as long as the registry. Updating a metric takes no lock; looking up a
// label set does, so callers on hot paths keep the reference that they get.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace uccp {

class Counter {
 public:
  void add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void set(double v) { value_.store(v, std::memory_order_relaxed); }
  void add(double v) { value_.fetch_add(v, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Cumulative buckets with fixed upper bounds, in the unit that the family's name ends with.
class Histogram {
 public:
  explicit Histogram(const std::vector<double>& bounds);
  void observe(double v);
  uint64_t count() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  // Upper bound of the bucket in which the q-quantile (0..1) lies; 0 without observations.
  double quantile(double q) const;

 private:
  friend class MetricsRegistry;
  const std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> buckets_;  // one more than bounds: above the last
  std::atomic<double> sum_{0};
};

using Labels = std::map<std::string, std::string>;

class MetricsRegistry {
 public:
  // A family may have at most this many label sets; further ones share the set {overflow="true"}.
  static constexpr size_t kLabelSetsMax = 1000;
  // 50 us to 10 s: fits queueing, disk and network alike.
  static const std::vector<double>& seconds_buckets();

  // Requires: a name is always used with the same kind. Returned references stay valid.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help, const Labels& labels = {},
                       const std::vector<double>& bounds = seconds_buckets());
  // `read` is called at each scrape, from the scraping thread.
  void callback(std::string_view name, std::string_view help, std::move_only_function<double()> read);

  // The whole registry in the Prometheus text format 0.0.4.
  std::string text();
  // Current value of a counter or gauge, 0 if there is none. For tests and `top`.
  double value(std::string_view name, const Labels& labels = {});

 private:
  enum class Kind { kCounter, kGauge, kHistogram, kCallback };
  struct Family {
    Kind kind;
    std::string help;
    std::map<Labels, std::unique_ptr<Counter>> counters;
    std::map<Labels, std::unique_ptr<Gauge>> gauges;
    std::map<Labels, std::unique_ptr<Histogram>> histograms;
    std::move_only_function<double()> read;
  };
  Family& family(std::string_view name, std::string_view help, Kind kind);

  std::mutex mutex_;
  std::map<std::string, Family, std::less<>> families_;
};

}  // namespace uccp
