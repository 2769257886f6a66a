// Calls of Python functions and actors beside Ray, by one script that runs on both.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <thread>

#include "bench/bench.h"
#include "bench/process.h"
#include "bench/shared_objects.h"

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

// What a program puts into shared memory, beside Ray or beside copying by itself.
void add_object_rows(std::map<std::string, Row>& rows) {
  const auto row = [&](const char* key, std::string metric, std::string unit, double limit, const char* peer) {
    Row made{.metric = std::move(metric),
             .unit = std::move(unit),
             .better = Better::kHigher,
             .goal = {Goal::Of::kRatio, Better::kHigher, limit}};
    made.peer_name = peer;
    made.peer_required = true;
    made.settings = "one client; every value is compared";
    rows.emplace(key, std::move(made));
  };
  row("get_1kb", "get of 1 KB from shared memory", "1/s", 5, "Ray");
  row("put_1kb", "put of 1 KB into shared memory", "1/s", 3, "Ray");
  row("put_100mb", "put of 100 MB into shared memory", "GB/s", 0, "Ray");
  rows.at("put_100mb").goal = {};
  row("put_100mb_warm", "put of 100 MB into warm memory", "GB/s", 0.8, "memcpy");
  row("put_100mb_cold", "put of 100 MB into new memory", "GB/s", 0.3, "memcpy");
}

Status run_readers(Context& context, const DevServer& server) {
  constexpr size_t kReaders = 50, kBytes = 1024;
  Row row{.metric = "GET of 1 KB by 50 clients", .unit = "1/s", .better = Better::kHigher};
  row.goal = {Goal::Of::kRatio, Better::kHigher, 5};
  row.peer_name = "Redis";
  row.peer_required = true;
  row.settings =
      "50 threads that read shared memory, each with a page of its own; 50 clients of redis-benchmark, no pipeline";
  if (!context.wants(row.metric)) return Status::ok();
  for (int i = 0; i < context.pairs(); ++i) {
    const auto ours = shared_gets(server.directory() + "/agent", kReaders, kBytes, context.seconds());
    const auto theirs = redis_gets(context, kReaders, kBytes, context.seconds());
    if (!ours) row.problem = ours.error().message();
    else if (!theirs) row.problem = theirs.error().message();
    if (!row.problem.empty()) break;
    row.add_ours(ours->rate);
    row.add_peer(*theirs);
    row.verified += ours->verified;
    row.detail("p99_us", ours->p99_us);
  }
  context.emit(row);
  return Status::ok();
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
  add_object_rows(rows);
  UCCP_RETURN_IF_ERROR(run_readers(context, *server));
  for (int i = 0; i < context.pairs(); ++i) {
    const auto ours = measure(context, "venv", {"uccp", server->directory() + "/dev.json"});
    const auto peer = measure(context, "venv-ray", {"ray", "-"});
    for (auto& [key, one] : rows) {
      if (!ours) one.problem = ours.error().message();
      else if (!peer) one.problem = peer.error().message();
      if (!one.problem.empty()) continue;
      // Copying is measured beside ours.
      const bool by_itself = one.peer_name == "memcpy";
      const auto mine = ours->rows.find(key);
      const auto theirs = by_itself ? ours->rows.find("memcpy_100mb") : peer->rows.find(key);
      if (mine == ours->rows.end() || theirs == (by_itself ? ours : peer)->rows.end()) {
        one.problem = "a sample lacks " + key;
        continue;
      }
      one.add_ours(mine->second);
      one.add_peer(theirs->second);
      if (!by_itself) one.peer_version = peer->version;
      one.verified = ours->checked;
    }
  }
  for (const auto& [key, one] : rows) context.emit(one);
  return Status::ok();
}

}  // namespace uccp::bench
