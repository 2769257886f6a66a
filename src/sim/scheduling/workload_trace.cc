#include "sim/scheduling/workload_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "base/random.h"

namespace uccp::sim {
namespace {

constexpr size_t kFields = 18;
constexpr double kNumberMax = 1e15;  // exact as a whole number
enum Field : size_t { kSubmit = 1, kRun = 3, kAllocated = 4, kRequested = 7, kLimit = 8, kUser = 11 };

// Parameters of the model's batch jobs, in its own names.
constexpr double kSerial = 0.244, kPowerOfTwo = 0.576;
constexpr double kLow = 0.8, kMiddleBelowHigh = 2.5, kLowShare = 0.86;
constexpr double kShortShape = 4.2, kShortScale = 0.94, kLongShape = 312, kLongScale = 0.03;
constexpr double kShortBySize = -0.0054, kShortAtNone = 0.78;
constexpr double kRunLogMax = 12;  // about two days

constexpr std::array<int64_t, 10> kAskedMinutes = {15, 30, 60, 120, 240, 480, 720, 1'440, 2'880, 4'320};
// Arrivals by hour: night, morning and evening, working hours.
constexpr std::array<double, 24> kByHour = {0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 1.0, 1.6, 1.6, 1.6, 1.6,
                                            1.6, 1.6, 1.6, 1.6, 1.6, 1.6, 1.0, 1.0, 1.0, 1.0, 0.4, 0.4};

double normal(SeededRandom& random) {
  return std::sqrt(-2 * std::log(1 - random.unit())) * std::cos(2 * M_PI * random.unit());
}

// Marsaglia and Tsang's method; the shapes here are above 1.
double gamma(SeededRandom& random, double shape, double scale) {
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = normal(random);
    const double v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1 - random.unit()) < x * x / 2 + d - d * v + d * std::log(v)) return d * v * scale;
  }
}

int64_t draw_size(SeededRandom& random, int64_t processors) {
  if (random.chance(kSerial)) return 1;
  const double high = std::log2(static_cast<double>(processors));
  const double middle = std::max(kLow, high - kMiddleBelowHigh);
  const bool lower = random.chance(kLowShare);
  const double from = lower ? kLow : middle;
  double exponent = from + random.unit() * ((lower ? middle : high) - from);
  if (random.chance(kPowerOfTwo)) exponent = std::round(exponent);
  return std::clamp<int64_t>(std::llround(std::exp2(exponent)), 1, processors);
}

int64_t draw_run_s(SeededRandom& random, int64_t size) {
  const double is_short = std::clamp(kShortBySize * static_cast<double>(size) + kShortAtNone, 0.0, 1.0);
  const bool brief = random.chance(is_short);
  const double log_run = gamma(random, brief ? kShortShape : kLongShape, brief ? kShortScale : kLongScale);
  return std::max<int64_t>(1, std::llround(std::exp(std::min(log_run, kRunLogMax))));
}

int64_t draw_limit_s(SeededRandom& random, int64_t run_s) {
  const double wanted = static_cast<double>(run_s) * (1 + 4 * random.unit());
  for (const int64_t minutes : kAskedMinutes) {
    if (static_cast<double>(minutes * 60) >= wanted) return minutes * 60;
  }
  return std::max(run_s, kAskedMinutes.back() * 60);
}

int64_t draw_user(SeededRandom& random, size_t users) {
  double sum = 0;
  for (size_t rank = 1; rank <= users; ++rank) sum += 1.0 / static_cast<double>(rank);
  double at = random.unit() * sum;
  for (size_t rank = 1; rank < users; ++rank) {
    at -= 1.0 / static_cast<double>(rank);
    if (at < 0) return static_cast<int64_t>(rank);
  }
  return static_cast<int64_t>(users);
}

Status malformed(size_t line, const std::string& what) {
  return Status(
      Code::kInvalid, "TRACE_MALFORMED",
      fmt::format("line {} of the trace: {}; a line of the Standard Workload Format is 18 numbers", line, what));
}

Result<std::array<double, kFields>> parse_line(std::string_view text, size_t number) {
  std::array<double, kFields> fields{};
  size_t count = 0;
  while (true) {
    const size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) break;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(" \t\r"));
    if (count == kFields) return std::unexpected(malformed(number, "there are more than 18 numbers"));
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), fields[count]);
    if (error != std::errc() || end != word.data() + word.size() || !(std::abs(fields[count]) <= kNumberMax))
      return std::unexpected(malformed(number, fmt::format("\"{}\" is no number up to {:g}", word, kNumberMax)));
    ++count;
    text.remove_prefix(word.size());
  }
  if (count < kFields) return std::unexpected(malformed(number, fmt::format("there are only {} numbers", count)));
  return fields;
}

}  // namespace

Result<std::vector<TraceJob>> parse_swf(std::string_view text) {
  std::multimap<int64_t, TraceJob> by_submission;  // those of one moment in the order of their lines
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    line = line.substr(0, line.find(';'));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    UCCP_TRY(const auto fields, parse_line(line, number));
    const auto field = [&](Field f) { return static_cast<int64_t>(fields[f]); };
    TraceJob job{.submit_s = std::max<int64_t>(0, field(kSubmit)),
                 .run_s = field(kRun),
                 .limit_s = std::max(field(kLimit), field(kRun)),
                 .processors = field(kAllocated) > 0 ? field(kAllocated) : field(kRequested),
                 .user = field(kUser)};
    if (job.run_s > 0 && job.processors > 0) by_submission.emplace(job.submit_s, job);
  }
  std::vector<TraceJob> jobs;
  for (const auto& [submit_s, job] : by_submission) jobs.push_back(job);
  return jobs;
}

std::string to_swf(const std::vector<TraceJob>& jobs, std::string_view about) {
  std::string out = fmt::format("; Version: 2.2\n; Note: {}\n; MaxJobs: {}\n", about, jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    const TraceJob& job = jobs[i];
    out += fmt::format("{} {} -1 {} {} -1 -1 {} {} -1 1 {} -1 -1 -1 -1 -1 -1\n", i + 1, job.submit_s, job.run_s,
                       job.processors, job.processors, job.limit_s, job.user);
  }
  return out;
}

std::vector<TraceJob> make_trace(uint64_t seed, const TraceModel& model) {
  SeededRandom random(seed);
  std::vector<TraceJob> jobs(model.jobs);
  double work = 0, arrives = 0;
  std::vector<double> submits;
  for (TraceJob& job : jobs) {
    job.processors = draw_size(random, model.processors);
    job.run_s = draw_run_s(random, job.processors);
    job.limit_s = draw_limit_s(random, job.run_s);
    job.user = draw_user(random, model.users);
    work += static_cast<double>(job.run_s * job.processors);
    submits.push_back(arrives -= std::log(1 - random.unit()));
  }
  // In the time in which the machine could do the work at that load; hours of a day pass faster or slower.
  const double span_s = work / (static_cast<double>(model.processors) * model.load);
  const double stretch = arrives > 0 ? span_s / arrives : 0;
  double day = 0;
  for (const double share : kByHour) day += share / static_cast<double>(kByHour.size());
  double mean_s = 0, now_s = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const double until_s = submits[i] * stretch;
    while (mean_s < until_s) {
      const double rate = kByHour[static_cast<size_t>(std::fmod(now_s / 3600, 24))] / day;
      const double hour_left_s = 3600 - std::fmod(now_s, 3600);
      const double step_s = std::min(until_s - mean_s, hour_left_s * rate);
      mean_s += step_s;
      now_s += std::max(step_s / rate, 1e-6);
    }
    jobs[i].submit_s = static_cast<int64_t>(now_s);
  }
  return jobs;
}

}  // namespace uccp::sim
