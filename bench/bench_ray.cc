// Functions on Ray through the platform, beside a bare driver of the same cluster, by one script that does both by
// turns.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/process.h"

namespace uccp::bench {
namespace {

Status add_samples(simdjson::dom::element json, std::string_view key, Row& row) {
  for (const auto& [side, ours] : {std::pair("ours", true), std::pair("bare", false)}) {
    simdjson::dom::array samples;
    if (json[side].get(samples) != simdjson::SUCCESS)
      return Status(Code::kUnavailable, "SAMPLE_FAILED", std::string("no samples of ") + side);
    for (const simdjson::dom::element sample : samples) {
      double value = 0;
      uint64_t checked = 0;
      if (sample[key].get(value) != simdjson::SUCCESS || sample["checked"].get(checked) != simdjson::SUCCESS)
        return Status(Code::kUnavailable, "SAMPLE_FAILED", "a sample lacks " + std::string(key));
      if (ours) row.add_ours(value);
      else row.add_peer(value);
      if (ours) row.verified += checked;
    }
  }
  return {};
}

}  // namespace

Status run_compute_ray(Context& context) {
  const std::string python = context.bin_dir + "/../venv/bin/python3";
  const std::string script = context.bin_dir + "/../../bench/ray_overhead.py";
  Row calls{.metric = "calls on Ray that are not durable, 500 at a time", .unit = "1/s", .better = Better::kHigher};
  calls.settings = "one client; ours in lanes, which are actors of Ray; theirs tasks of Ray";
  Row brief{.metric = "durable calls on Ray of some 10 ms", .unit = "s", .better = Better::kLower};
  Row job{.metric = "durable calls on Ray of some 50 ms", .unit = "s", .better = Better::kLower};
  for (Row* row : {&brief, &job})
    row->settings = "16 a core, one task of Ray each on both sides; ours with its place in the log";
  for (Row* row : {&calls, &brief, &job}) {
    row->goal = {Goal::Of::kRatio, Better::kHigher, 0.77};
    row->peer_name = "bare driver of Ray";
    row->peer_required = true;
  }
  brief.goal = {};  // the way through the log and back to a free place is some 5 ms a call
  std::string problem;
  if (::access(python.c_str(), X_OK) != 0) {
    problem = "build/venv is not there (bench/run.sh makes it)";
  } else {
    const std::vector<std::string> command = {python, script, std::to_string(context.pairs()),
                                              fmt::format("{}", context.seconds())};
    UCCP_TRY(const Ended ended, run_program(command, context.work_dir + "/ray.txt"));
    const size_t line = ended.text.rfind("{\"ray\"");
    simdjson::dom::parser parser;
    simdjson::dom::element json;
    std::string_view version;
    const bool read = line != std::string::npos &&
                      parser.parse(simdjson::padded_string(ended.text.substr(line))).get(json) == simdjson::SUCCESS &&
                      json["ray"].get(version) == simdjson::SUCCESS;
    if (!read) problem = ended.how + ": " + ended.text.substr(0, 500);
    for (const auto& [key, row] :
         {std::pair("calls", &calls), std::pair("short_s", &brief), std::pair("long_s", &job)}) {
      if (!problem.empty()) break;
      if (const Status status = add_samples(json, key, *row); !status.is_ok()) problem = status.message();
      row->peer_version = version;
    }
  }
  for (Row* row : {&calls, &brief, &job}) {
    row->problem = problem;
    context.emit(*row);
  }
  return Status::ok();
}

}  // namespace uccp::bench
