// uccp-sim: whole clusters in one thread and virtual time, each a function of its seed. docs/simulation.md
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "base/log.h"
#include "machine/planted.h"
#include "sim/checkers/history_file.h"
#include "sim/cluster/simulation.h"
#include "storage/planted.h"

namespace uccp::sim {
namespace {

constexpr uint64_t kRepeatEvery = 5;

struct Arguments {
  uint64_t seed = 1;
  uint64_t seeds = 1;
  uint64_t operations = 3000;
  std::string plant;
  bool trace = false;
};

constexpr const char* kUsage =
    "uccp-sim [--seed N] [--seeds K] [--ops M] [--plant NAME] [--trace]\n"
    "uccp-sim --check-history FILE    whether a recorded history of registers is linearizable\n"
    "  --seed N      the first seed, default 1\n"
    "  --seeds K     how many seeds, one after the other, default 1\n"
    "  --ops M       operations of the clients, default 3000\n"
    "  --plant NAME  with a planted bug (preset `planted` only): skip_fsync, drop_dedup, apply_twice, no_fence\n"
    "  --trace       prints what happens\n"
    "Exit code: 0 if every seed is clean, 1 if one is not, 2 for a wrong command line.\n";

bool parse_number(const char* text, uint64_t& out) {
  char* end = nullptr;
  out = std::strtoull(text, &end, 10);
  return *text != '\0' && *end == '\0';
}

bool parse(int argc, char** argv, Arguments& out) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--trace") {
      out.trace = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (name == "--seed" && parse_number(value, out.seed)) continue;
    if (name == "--seeds" && parse_number(value, out.seeds)) continue;
    if (name == "--ops" && parse_number(value, out.operations)) continue;
    if (name == "--plant") {
      out.plant = value;
      continue;
    }
    return false;
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

bool plant(const std::string& name) {
  if (name.empty()) return true;
#ifdef UCCP_PLANTED_BUGS
  storage::plant_bug(name);
  machine::plant_bug(name);
  return true;
#else
  return false;
#endif
}

void print(uint64_t seed, const SimResult& r, bool clean) {
  uint64_t total = 0;
  std::string kinds;
  for (size_t i = 0; i < r.faults.size(); ++i) {
    total += r.faults[i];
    if (r.faults[i] > 0) kinds += " " + std::string(fault_name(static_cast<Fault>(i))) + "=" + std::to_string(r.faults[i]);
  }
  std::printf("seed %llu %s ops=%llu attempts=%llu faults=%llu virtual_s=%.1f hash=%016llx%s\n",
              static_cast<unsigned long long>(seed), clean ? "ok" : "FAIL",
              static_cast<unsigned long long>(r.operations), static_cast<unsigned long long>(r.attempts),
              static_cast<unsigned long long>(total), static_cast<double>(r.virtual_us) / 1e6,
              static_cast<unsigned long long>(r.trace_hash), kinds.c_str());
}

bool run_seed(uint64_t seed, const Arguments& arguments) {
  std::snprintf(reproduce, sizeof reproduce, "  reproduce: build/bin/uccp-sim --seed %llu --ops %llu%s%s\n",
                static_cast<unsigned long long>(seed), static_cast<unsigned long long>(arguments.operations),
                arguments.plant.empty() ? "" : " --plant ", arguments.plant.c_str());
  const SimOptions options = draw_options(seed, arguments.operations);
  SimResult result = simulate(options, arguments.trace);
  if (result.violations.empty() && seed % kRepeatEvery == 0 && !arguments.trace) {
    const uint64_t again = simulate(options, false).trace_hash;
    if (again != result.trace_hash) result.violations.push_back("determinism: two runs of this seed differ");
  }
  const bool clean = result.violations.empty();
  print(seed, result, clean);
  for (const std::string& violation : result.violations) std::printf("  %s\n", violation.c_str());
  if (!clean) std::printf("%s", reproduce);
  std::fflush(stdout);
  return clean;
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
  checker.check();
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
  if (!plant(arguments.plant)) {
    std::fputs("uccp-sim: --plant needs a build with -DUCCP_PLANTED_BUGS=ON (preset `planted`)\n", stderr);
    return 2;
  }
  log::configure({.level = arguments.trace ? log::Level::kInfo : log::Level::kFatal, .format = log::Format::kText});
  if (arguments.trace)
    log::set_sink([](std::string_view line) { std::printf("%.*s\n", static_cast<int>(line.size()), line.data()); });
  for (const int signal : {SIGABRT, SIGSEGV, SIGFPE}) std::signal(signal, print_reproduce);
  bool clean = true;
  for (uint64_t seed = arguments.seed; seed < arguments.seed + arguments.seeds; ++seed) {
    clean = run_seed(seed, arguments) && clean;
  }
  return clean ? 0 : 1;
}

}  // namespace
}  // namespace uccp::sim

int main(int argc, char** argv) { return uccp::sim::run(argc, argv); }
