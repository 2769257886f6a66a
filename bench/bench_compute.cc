// Calls of Python functions and actors beside Ray, by one script that runs on both.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <thread>

#include "bench/bench.h"
#include "bench/process.h"

namespace uccp::bench {
namespace {

struct Run {
  std::string version;
  std::map<std::string, double, std::less<>> rows;
  uint64_t checked = 0;
};

// One sample of all rows by a program of its own; bench/run.sh installs what it needs.
Result<Run> measure(const Context& context, const std::string& venv, const std::vector<std::string>& arguments) {
  const std::string python = context.bin_dir + "/../" + venv + "/bin/python3";
  const std::string script = context.bin_dir + "/../../bench/compute_rates.py";
  if (::access(python.c_str(), X_OK) != 0 || ::access(script.c_str(), R_OK) != 0) {
    return fail(Code::kNotFound, "PYTHON_MISSING", venv + " is not there (bench/run.sh makes it)");
  }
  const std::string log = context.work_dir + "/compute.txt";
  std::vector<std::string> command = {python, script};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.push_back(fmt::format("{}", context.seconds()));
  UCCP_TRY(const Ended ended, run_program(command, log));
  const size_t line = ended.text.rfind("{\"version\"");
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  simdjson::dom::object rows;
  std::string_view version;
  Run run;
  const bool read = line != std::string::npos &&
                    parser.parse(simdjson::padded_string(ended.text.substr(line))).get(json) == simdjson::SUCCESS &&
                    json["version"].get(version) == simdjson::SUCCESS &&
                    json["checked"].get(run.checked) == simdjson::SUCCESS &&
                    json["rows"].get(rows) == simdjson::SUCCESS;
  if (!read) return fail(Code::kUnavailable, "SAMPLE_FAILED", ended.how + ": " + ended.text.substr(0, 500));
  for (const auto [key, value] : rows) run.rows.emplace(key, value.get_double().value_unsafe());
  run.version = version;
  return run;
}

}  // namespace

Status run_compute(Context& context) {
  UCCP_TRY(const auto server, DevServer::start(context, {.agent = true}));
  const auto row = [](std::string metric, std::string unit, Better better, double limit) {
    Row made{.metric = std::move(metric),
             .unit = std::move(unit),
             .better = better,
             .goal = {Goal::Of::kRatio, Better::kHigher, limit}};
    made.peer_name = "Ray";
    made.peer_required = true;
    return made;
  };
  std::map<std::string, Row> rows;
  rows.emplace("functions_async", row("Python functions, 1,000 at a time", "1/s", Better::kHigher, 3));
  rows.emplace("functions_sync_ms", row("Python function, one after the other", "ms", Better::kLower, 2));
  rows.emplace("actor_async", row("calls of an actor, 1,000 at a time", "1/s", Better::kHigher, 3));
  rows.emplace("actor_sync_ms", row("call of an actor, one after the other", "ms", Better::kLower, 2));
  for (auto& [key, one] : rows)
    one.settings = "one client, values of a few bytes, not durable on either side; ours through the server by TLS";
  for (int i = 0; i < context.pairs(); ++i) {
    const auto ours = measure(context, "venv", {"uccp", server->directory() + "/dev.json"});
    const auto peer = measure(context, "venv-bench-ray", {"ray", "-"});
    for (auto& [key, one] : rows) {
      if (!ours) one.problem = ours.error().message();
      else if (!peer) one.problem = peer.error().message();
      if (!one.problem.empty()) continue;
      const auto mine = ours->rows.find(key), theirs = peer->rows.find(key);
      if (mine == ours->rows.end() || theirs == peer->rows.end()) {
        one.problem = "a sample lacks " + key;
        continue;
      }
      one.add_ours(mine->second);
      one.add_peer(theirs->second);
      one.peer_version = peer->version;
      one.verified = ours->checked;
    }
  }
  for (const auto& [key, one] : rows) context.emit(one);
  return Status::ok();
}

}  // namespace uccp::bench
