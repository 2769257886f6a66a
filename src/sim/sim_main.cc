// uccp-sim: whole clusters in one thread and virtual time, each a function of its seed. docs/simulation.md
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "sim/checkers/history_file.h"
#include "sim/cluster/evidence.h"
#include "sim/cluster/plant.h"
#include "sim/cluster/simulation.h"

namespace uccp::sim {
namespace {

constexpr uint64_t kRepeatEvery = 10;
constexpr uint64_t kHistorySteps = 50'000'000;

struct Arguments {
  uint64_t seed = 1;
  uint64_t seeds = 1;
  uint64_t operations = 3000;
  std::string plant;
  std::string evidence;
  std::string commit = "unknown";
  Workload workload = Workload::kAll;
  bool trace = false;
  bool quiet = false;
};

constexpr std::array<std::pair<std::string_view, Workload>, 3> kWorkloads = {
    {{"--events", Workload::kEvents}, {"--arrays", Workload::kArrays}, {"--gangs", Workload::kGangs}}};

// As it is given, with a blank before it; empty for what is done without one.
std::string option_of(Workload workload) {
  const auto named = std::ranges::find(kWorkloads, workload, &std::pair<std::string_view, Workload>::second);
  return named == kWorkloads.end() ? "" : " " + std::string(named->first);
}

constexpr const char* kUsage =
    "uccp-sim [--seed N] [--seeds K] [--ops M] [--events | --arrays | --gangs] [--evidence FILE --commit ID] [--quiet] "
    "[--plant "
    "NAME] "
    "[--trace]\n"
    "uccp-sim --check-history FILE    whether a recorded history of registers is linearizable\n"
    "  --seed N         the first seed, default 1\n"
    "  --seeds K        how many seeds, one after the other, default 1\n"
    "  --ops M          operations of the clients, default 3000\n"
    "  --events         with a group of the event bus; clients mostly publish and read events\n"
    "  --arrays         clients mostly submit and cancel tasks, half of them arrays\n"
    "  --gangs          the same with gangs, which are stopped for other tasks\n"
    "  --evidence FILE  writes what ran and what it met; not clean if a kind of fault never fired\n"
    "  --commit ID      of the program, for the evidence\n"
    "  --quiet          a line only for seeds that are not clean, and one at the end\n"
    "  --plant NAME     with a planted bug (uccp-sim-planted only); NAME `list` lists them\n"
    "  --trace          prints what happens\n"
    "Exit code: 0 if every seed is clean, 1 if one is not, 2 for a wrong command line.\n";

bool parse_number(const char* text, uint64_t& out) {
  char* end = nullptr;
  out = std::strtoull(text, &end, 10);
  return *text >= '0' && *text <= '9' && *end == '\0';
}

bool parse(int argc, char** argv, Arguments& out) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--trace" || name == "--quiet") {
      (name == "--trace" ? out.trace : out.quiet) = true;
      continue;
    }
    if (const auto named = std::ranges::find(kWorkloads, name, &std::pair<std::string_view, Workload>::first);
        named != kWorkloads.end()) {
      out.workload = named->second;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (name == "--seed" && parse_number(value, out.seed)) continue;
    if (name == "--seeds" && parse_number(value, out.seeds)) continue;
    if (name == "--ops" && parse_number(value, out.operations)) continue;
    std::string* text = name == "--plant"      ? &out.plant
                        : name == "--evidence" ? &out.evidence
                        : name == "--commit"   ? &out.commit
                                               : nullptr;
    if (text == nullptr) return false;
    *text = value;
  }
  return true;
}

// What reproduces the seed at work; also printed when a check of the program itself ends it.
char reproduce[512];

void print_reproduce(int signal) {
  const ssize_t written = write(STDOUT_FILENO, reproduce, std::strlen(reproduce));
  std::signal(signal, SIG_DFL);
  std::raise(written < 0 ? SIGABRT : signal);
}

void print(uint64_t seed, const SimResult& r, bool clean) {
  std::string kinds;
  for (size_t i = 0; i < kFaults; ++i) {
    if (r.faults[i] == 0) continue;
    kinds += " " + std::string(fault_name(static_cast<Fault>(i))) + "=" + std::to_string(r.faults[i]);
  }
  std::printf("seed %llu %s nodes=%zu ops=%llu faults=%llu terms=%llu attempts=%llu virtual_s=%.1f hash=%016llx%s\n",
              static_cast<unsigned long long>(seed), clean ? "ok" : "FAIL", r.nodes,
              static_cast<unsigned long long>(r.operations), static_cast<unsigned long long>(injected(r)),
              static_cast<unsigned long long>(r.elections), static_cast<unsigned long long>(r.attempts),
              static_cast<double>(r.virtual_us) / 1e6, static_cast<unsigned long long>(r.trace_hash), kinds.c_str());
}

bool run_seed(uint64_t seed, const Arguments& arguments, Evidence& evidence) {
  std::snprintf(reproduce, sizeof reproduce, "  reproduce: build/bin/uccp-sim%s --seed %llu --ops %llu%s%s%s\n",
                arguments.plant.empty() ? "" : "-planted", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(arguments.operations), option_of(arguments.workload).c_str(),
                arguments.plant.empty() ? "" : " --plant ", arguments.plant.c_str());
  const SimOptions options = draw_options(seed, arguments.operations, arguments.workload);
  SimResult result = simulate(options, arguments.trace);
  if (result.violations.empty() && seed % kRepeatEvery == 0 && !arguments.trace) {
    const uint64_t again = simulate(options, false).trace_hash;
    if (again != result.trace_hash) result.violations.push_back("determinism: two runs of this seed differ");
    evidence.repeated();
  }
  const bool clean = result.violations.empty();
  evidence.add(result);
  if (!clean || !arguments.quiet) print(seed, result, clean);
  for (const std::string& violation : result.violations) std::printf("  %s\n", violation.c_str());
  if (!clean) std::printf("%s", reproduce);
  std::fflush(stdout);
  return clean;
}

// Wall time is of the report only.
double wall_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

bool write_evidence(const Arguments& arguments, const Evidence& evidence) {
  std::FILE* file = std::fopen(arguments.evidence.c_str(), "w");
  const std::string text = evidence.to_tsv(arguments.commit, arguments.seed, arguments.operations);
  const bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if ((file != nullptr && std::fclose(file) != 0) || !written) {
    std::fprintf(stderr, "uccp-sim: the evidence could not be written to %s: %s\n", arguments.evidence.c_str(),
                 std::strerror(errno));
    return false;
  }
  const std::string missing = evidence.missing();
  if (!missing.empty()) std::printf("not clean: these never fired:%s\n", missing.c_str());
  return missing.empty();
}

int check_history(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  const auto history = file ? parse_history(text.str()) : fail(Code::kNotFound, "HISTORY_MISSING", "cannot be read");
  if (!history) {
    std::fprintf(stderr, "uccp-sim: %s: %s\n", path, history.error().message().c_str());
    return 2;
  }
  Violations violations;
  LinearizabilityChecker checker(violations);
  size_t total = 0;
  for (const auto& [key, operations] : *history) {
    total += operations.size();
    for (const RegisterOperation& operation : operations) checker.add(key, operation);
  }
  checker.check(kHistorySteps);
  // Nothing else decides about a history of real clients.
  if (checker.undecided() > 0) violations.add("linearizability", "a history was too hard to decide");
  for (const std::string& violation : violations.found()) std::printf("%s\n", violation.c_str());
  std::printf("linearizability: %s, %zu operations on %zu registers\n", violations.empty() ? "ok" : "FAIL", total,
              history->size());
  return violations.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--check-history") return check_history(argv[2]);
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (const std::string refused = plant(arguments.plant); !refused.empty()) {
    std::fprintf(stderr, "uccp-sim: %s\n", refused.c_str());
    return 2;
  }
  log::configure({.level = arguments.trace ? log::Level::kInfo : log::Level::kFatal, .format = log::Format::kText});
  if (arguments.trace)
    log::set_sink([](std::string_view line) { std::printf("%.*s\n", static_cast<int>(line.size()), line.data()); });
  for (const int signal : {SIGABRT, SIGSEGV, SIGFPE}) std::signal(signal, print_reproduce);
  Evidence evidence;
  const double begin_s = wall_s();
  for (uint64_t seed = arguments.seed; seed < arguments.seed + arguments.seeds; ++seed) {
    if (!run_seed(seed, arguments, evidence)) evidence.failed(seed);
  }
  const double took_s = wall_s() - begin_s;
  const double cpu_s = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  if (arguments.seeds > 1) std::printf("%s\n", evidence.summary(took_s, cpu_s).c_str());
  bool clean = evidence.clean();
  if (!arguments.evidence.empty()) clean = write_evidence(arguments, evidence) && clean;
  return clean ? 0 : 1;
}

}  // namespace
}  // namespace uccp::sim

int main(int argc, char** argv) { return uccp::sim::run(argc, argv); }
