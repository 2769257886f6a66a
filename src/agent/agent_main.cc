// uccp-agent: the worker program. Reads the flags, takes the data directory, builds the agent and runs its loop.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "agent/agent.h"
#include "agent/certificate_keeper.h"
#include "agent/container_executor.h"
#include "agent/device_watch.h"
#include "agent/duration_text.h"
#include "agent/function_executor.h"
#include "agent/grpc_link.h"
#include "agent/guard.h"
#include "agent/machine_info.h"
#include "agent/object_settings.h"
#include "agent/process_executor.h"
#include "agent/ray_address.h"
#include "agent/ray_executor.h"
#include "agent/ray_jobs.h"
#include "agent/reactor.h"
#include "agent/server_address.h"
#include "base/bytes.h"
#include "base/log.h"
#include "doors/grpc_client/process.h"
#include "runtime/fork_server.h"
#include "runtime/os_random.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "runtime/signals.h"
#include "services/container_names.h"
#include "services/function_names.h"
#include "services/ray_names.h"

namespace uccp::agent {
namespace {

constexpr int64_t kShutdownGraceMs = 5'000;
constexpr int64_t kDeviceIntervalMinMs = 100;

struct Flags {
  std::string data_directory = "data/agent";
  std::string name;
  std::vector<std::string> labels;
  std::string pool, region, zone, type;
  std::vector<std::string> taints;
  double cpu = 0;
  uint64_t memory = 0;
  uint64_t disk = 0;
  size_t attempts_max = 1000;
  uint64_t cache_bytes_max = 4ull << 30;
  std::string exit_after_alone;
  std::string log_level = "INFO";
  std::string inventory;
  std::string device_interval = "10s";
  std::string python;
  std::string ray_address;
  size_t function_workers_max = 0;
  std::string runc;
  std::string images;
  size_t cached_images_max = 8;
  uint64_t image_bytes_max = 16ull << 30;
  ObjectSettings objects;
  bool allow_root_tasks = false;
  ServerAddressOptions server;
};

void add_object_flags(CLI::App& app, Flags& flags) {
  app.add_option("--objects-memory", flags.objects.memory,
                 "Bytes of memory for objects that processes share; default a quarter, 0: none are shared")
      ->envname("UCCP_AGENT_OBJECTS_MEMORY")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--objects-disk", flags.objects.disk,
                 "Bytes of disk, for each namespace, for objects that leave memory")
      ->envname("UCCP_AGENT_OBJECTS_DISK")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--objects-eviction", flags.objects.eviction, "Which objects leave first: s3-fifo, lru, lfu or ttl")
      ->envname("UCCP_AGENT_OBJECTS_EVICTION")
      ->capture_default_str();
  app.add_option("--objects-ttl", flags.objects.ttl, "Age at which objects leave memory with --objects-eviction ttl")
      ->envname("UCCP_AGENT_OBJECTS_TTL")
      ->capture_default_str();
  app.add_option("--objects-namespace-share", flags.objects.share,
                 "Percent of the memory for objects that those of one namespace may take")
      ->envname("UCCP_AGENT_OBJECTS_NAMESPACE_SHARE")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--objects-ready", flags.objects.ready,
                 "Bytes of memory that are made ready for objects that come, at most a sixteenth of --objects-memory")
      ->envname("UCCP_AGENT_OBJECTS_READY")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--objects-listen", flags.objects.listen,
                 "HOST:PORT at which other agents read objects of this machine; port 0: a free one")
      ->envname("UCCP_AGENT_OBJECTS_LISTEN")
      ->capture_default_str();
  app.add_option(
         "--objects-advertise", flags.objects.advertise,
         "Host by which other agents reach it; default that of --objects-listen, of all addresses the host name")
      ->envname("UCCP_AGENT_OBJECTS_ADVERTISE");
  app.add_option("--objects-compression", flags.objects.compression, "Of objects on the disk: none, lz4, zstd or gzip")
      ->envname("UCCP_AGENT_OBJECTS_COMPRESSION")
      ->capture_default_str();
  app.add_option("--objects-tier", flags.objects.tier,
                 "Where objects go that the disk is full of: redis://HOST:PORT, rediss://HOST:PORT or "
                 "s3://BUCKET/PREFIX?endpoint=URL&region=NAME; keys and passwords come from the environment")
      ->envname("UCCP_AGENT_OBJECTS_TIER");
  app.add_option("--objects-tier-compression", flags.objects.tier_compression,
                 "Of objects in the tier: none, lz4, zstd or gzip")
      ->envname("UCCP_AGENT_OBJECTS_TIER_COMPRESSION")
      ->capture_default_str();
  app.add_option("--objects-tier-ca", flags.objects.tier_ca,
                 "Authorities of the tier's certificate, PEM; default those of the system, of rediss:// none")
      ->envname("UCCP_AGENT_OBJECTS_TIER_CA");
  app.add_option("--objects-lease", flags.objects.lease,
                 "Time for which an agent that says nothing more holds objects of this machine, at least 1s")
      ->envname("UCCP_AGENT_OBJECTS_LEASE")
      ->capture_default_str();
}

void add_flags(CLI::App& app, Flags& flags) {
  app.add_option("--data-dir", flags.data_directory, "Directory of this worker, one agent at a time")
      ->capture_default_str();
  app.add_option("--context-file", flags.server.context_file,
                 "dev.json of `uccp dev`: address and certificates, read at each connection");
  app.add_option("--server", flags.server.server,
                 "HOST:PORT of a node, several separated by commas; wins over the context file");
  app.add_option("--ca", flags.server.ca_file, "Certificate of the cluster's authority, PEM");
  app.add_option("--cert", flags.server.cert_file, "Certificate of this agent, PEM");
  app.add_option("--key", flags.server.key_file, "Key of this agent, PEM");
  app.add_option("--name", flags.name, "Name of the worker; default the host name");
  app.add_option("--label", flags.labels, "KEY=VALUE, may be repeated");
  app.add_option("--pool", flags.pool, "Pool that the worker belongs to; default `default`");
  app.add_option("--region", flags.region, "Region that the worker is in");
  app.add_option("--zone", flags.zone, "Zone that the worker is in");
  app.add_option("--type", flags.type,
                 "dedicated, spot, accelerator, high-memory, network, storage or hybrid; default by its devices");
  app.add_option("--taint", flags.taints,
                 "KEY[=VALUE][:EFFECT], may be repeated; NO_SCHEDULE, PREFER_NO_SCHEDULE or NO_EXECUTE");
  app.add_option("--cpu", flags.cpu, "Cores to give to tasks; default all that are usable");
  app.add_option("--memory", flags.memory, "Bytes of memory to give to tasks, 64Mi and the like allowed; default all")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--disk", flags.disk, "Bytes of disk to give to tasks; default what is free")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--max-attempts", flags.attempts_max, "Attempts at the same time")->capture_default_str();
  app.add_option("--cache", flags.cache_bytes_max, "Bytes of inputs kept")->transform(CLI::AsSizeValue(false));
  app.add_option("--exit-after-alone", flags.exit_after_alone,
                 "End when no server was reachable for so long (30s, 5m) and nothing runs; default never");
  app.add_option("--inventory", flags.inventory,
                 "JSON file with the devices of this machine, in place of what is found")
      ->envname("UCCP_AGENT_INVENTORY");
  app.add_option("--device-interval", flags.device_interval,
                 "Time between two looks at the health, memory and load of GPUs, at least 100ms")
      ->envname("UCCP_AGENT_DEVICE_INTERVAL")
      ->capture_default_str();
  app.add_option("--python", flags.python,
                 "Python of functions, with the package uccp; default ../venv/bin/python beside the agent")
      ->envname("UCCP_AGENT_PYTHON");
  app.add_option("--ray-address", flags.ray_address,
                 "Ray that runs functions (auto, HOST:PORT, ray://HOST:PORT) or jobs (http://HOST:PORT); default none")
      ->envname("RAY_ADDRESS");
  app.add_option("--function-workers", flags.function_workers_max,
                 "Processes that run functions at a time; default two for each core, at least 4");
  app.add_option("--runc", flags.runc, "Program that runs containers; default runc, if there is one")
      ->envname("UCCP_AGENT_RUNC");
  app.add_option("--images", flags.images,
                 "Directory of images for containers, NAME.tar or NAME, that tasks of everybody may read")
      ->envname("UCCP_AGENT_IMAGES");
  app.add_option("--cached-images", flags.cached_images_max,
                 "Images of containers that are kept unpacked, for each namespace")
      ->capture_default_str();
  app.add_option("--image-bytes-max", flags.image_bytes_max,
                 "Most bytes of an unpacked image, 16Gi and the like allowed")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  add_object_flags(app, flags);
  app.add_option("--log-level", flags.log_level, "TRACE DEBUG INFO WARN ERROR")->capture_default_str();
  app.add_flag("--allow-root-tasks", flags.allow_root_tasks,
               "Run tasks as root when the agent is root. Not for shared clusters");
}

// Holds <data>/agent.lock for the life of the process, with the pid in it. False if another agent has it.
bool take_lock(const std::string& data_directory) {
  const std::string path = data_directory + "/agent.lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    std::fprintf(stderr, "uccp-agent: cannot open %s: %s\n", path.c_str(), std::strerror(errno));
    std::exit(1);
  }
  char pid[32] = {};
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    (void)!read(fd, pid, sizeof pid - 1);
    std::fprintf(stderr, "another agent (pid %d) serves %s\n", std::atoi(pid), data_directory.c_str());
    return false;
  }
  const int size = std::snprintf(pid, sizeof pid, "%d\n", getpid());
  (void)!ftruncate(fd, 0);
  (void)!pwrite(fd, pid, static_cast<size_t>(size), 0);
  // Same content under the name that scripts look for.
  const int pid_file = open((data_directory + "/agent.pid").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  (void)!write(pid_file, pid, static_cast<size_t>(size));
  close(pid_file);
  return true;
}

using DeviceSources = std::vector<std::unique_ptr<DeviceSource>>;

DeviceSources kernel_and_drivers(FileSystem& files) {
  DeviceSources sources;
  sources.push_back(nvml_devices());
  sources.push_back(sysfs_devices(files));
  return sources;
}

// Where this machine's graphics processors are read.
DeviceSources device_sources(const Flags& flags, FileSystem& files) {
  if (flags.inventory.empty()) return kernel_and_drivers(files);
  DeviceSources sources;
  sources.push_back(inventory_file(files, flags.inventory));
  return sources;
}

// What the machine has. Only a file that the operator named has to be right.
Result<DeviceInventory> devices_of(const Flags& flags, FileSystem& files, const DeviceSources& sources) {
  if (flags.inventory.empty()) return find_devices(sources);
  UCCP_TRY(DeviceInventory inventory, sources.front()->find());
  if (inventory.network_bps == 0) inventory.network_bps = find_devices(kernel_and_drivers(files)).network_bps;
  return inventory;
}

// "high-memory"; nothing if there is no such type.
std::optional<api::WorkerType> parse_type(const std::string& text) {
  std::string name = "WORKER_TYPE_";
  for (const char c : text) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  api::WorkerType type = api::WORKER_TYPE_UNSPECIFIED;
  if (text.empty()) return type;
  return api::WorkerType_Parse(name, &type) ? std::optional(type) : std::nullopt;
}

// "team=ml:NO_SCHEDULE"; nothing if the effect is none of them or the key is empty.
std::optional<api::Taint> parse_taint(const std::string& text) {
  api::Taint taint;
  const size_t colon = text.rfind(':');
  const std::string pair = text.substr(0, colon);
  api::TaintEffect effect = api::TAINT_EFFECT_NO_SCHEDULE;
  if (colon != std::string::npos && !api::TaintEffect_Parse("TAINT_EFFECT_" + text.substr(colon + 1), &effect))
    return std::nullopt;
  const size_t equals = pair.find('=');
  taint.set_key(pair.substr(0, equals));
  if (equals != std::string::npos) taint.set_value(pair.substr(equals + 1));
  taint.set_effect(effect);
  return taint.key().empty() ? std::nullopt : std::optional(taint);
}

AgentOptions agent_options(const Flags& flags) {
  AgentOptions options;
  options.pool = flags.pool;
  options.region = flags.region;
  options.zone = flags.zone;
  options.type = parse_type(flags.type).value_or(api::WORKER_TYPE_UNSPECIFIED);
  for (const std::string& taint : flags.taints) options.taints.push_back(*parse_taint(taint));
  options.data_directory = flags.data_directory;
  options.name = flags.name.empty() ? host_name() : flags.name;
  options.incarnation = to_hex(runtime::random_bytes(16));
  options.address = host_name();
  for (const std::string& label : flags.labels) {
    const size_t equals = label.find('=');
    options.labels[label.substr(0, equals)] = equals == std::string::npos ? "" : label.substr(equals + 1);
  }
  options.attempts_max = flags.attempts_max;
  options.cache_bytes_max = flags.cache_bytes_max;
  options.exit_after_alone_ms = parse_duration_ms(flags.exit_after_alone);
  return options;
}

Capacity capacity_of(const Flags& flags) {
  Capacity capacity = detect_capacity(flags.data_directory);
  if (flags.cpu > 0) capacity.cpu_millis = static_cast<int64_t>(flags.cpu * 1000);
  if (flags.memory > 0) capacity.memory_bytes = flags.memory;
  if (flags.disk > 0) capacity.disk_bytes = flags.disk;
  return capacity;
}

// Python with the package uccp, and which it is ("python3.11"); empty: functions are not run here.
struct FunctionPython {
  std::string path;
  std::string runtime;
};

// `pyvenv.cfg` of a virtual environment says which Python it is.
Result<FunctionPython> find_python(const Flags& flags) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path beside =
      fs::read_symlink("/proc/self/exe", error).parent_path().parent_path() / "venv" / "bin" / "python";
  const fs::path path = flags.python.empty() ? beside : fs::absolute(flags.python, error);
  const auto missing = [&](const std::string& what) -> Result<FunctionPython> {
    if (flags.python.empty()) return FunctionPython{};
    return fail(Code::kInvalid, "PYTHON_INVALID", "--python " + flags.python + ": " + what);
  };
  if (access(path.c_str(), X_OK) != 0) return missing("there is no such program");
  std::ifstream config(path.parent_path().parent_path() / "pyvenv.cfg");
  for (std::string line; std::getline(config, line);) {
    const size_t at = line.find("version = ");
    if (at != 0) continue;
    const std::string version = line.substr(std::string_view("version = ").size());
    return FunctionPython{path.string(), "python" + version.substr(0, version.find('.', version.find('.') + 1))};
  }
  return missing("it is not of a virtual environment; make one and install the package uccp");
}

FunctionExecutorOptions function_options(const Flags& flags, const FunctionPython& python, ObjectServer* objects) {
  FunctionExecutorOptions options{.data_directory = flags.data_directory, .python = python.path, .objects = objects};
  const auto cores = static_cast<size_t>(capacity_of(flags).cpu_millis / 1000);
  options.workers_max = flags.function_workers_max > 0 ? flags.function_workers_max : std::max<size_t>(4, 2 * cores);
  return options;
}

ContainerExecutorOptions container_options(const Flags& flags) {
  namespace fs = std::filesystem;
  std::error_code error;
  return {.program = (fs::read_symlink("/proc/self/exe", error).parent_path() / "uccp-container").string(),
          .runc = flags.runc.empty() ? "runc" : flags.runc,
          .images = flags.images.empty() ? "" : fs::absolute(flags.images, error).string(),
          .cached_images_max = flags.cached_images_max,
          .image_bytes_max = flags.image_bytes_max};
}

// Whether containers are run here. Only a runc that the operator named has to work.
Status find_containers(const Flags& flags, const ContainerExecutorOptions& containers_of, AgentOptions& options) {
  const Status status = probe_containers(containers_of, geteuid() == 0 && !flags.allow_root_tasks);
  options.runs_containers = status.is_ok();
  if (status.is_ok()) {
    options.labels.try_emplace(std::string(containers::kLabel), std::string(containers::kOci));
    return {};
  }
  if (!flags.runc.empty())
    return Status(Code::kInvalid, "RUNC_INVALID", "--runc " + flags.runc + ": " + std::string(status.message()));
  log::info("containers are not run here", {{"reason", status.message()}});
  return {};
}

// Where Ray is, and what this worker can do because of it.
Result<RayAddress> find_ray(const Flags& flags, const FunctionPython& python, AgentOptions& options) {
  UCCP_TRY(RayAddress address, parse_ray_address(flags.ray_address));
  if (address.door == RayDoor::kNone) return address;
  if (python.path.empty()) {
    return fail(
        Code::kInvalid, "PYTHON_MISSING",
        "RAY_ADDRESS needs a Python with the packages uccp and ray: name one by --python (make build-ml makes one, "
        "without ray)");
  }
  options.labels.try_emplace(std::string(ray::kLabel), ray_label_of(address.door));
  options.runs_ray_jobs = address.door == RayDoor::kJobs;
  return address;
}

RayExecutorOptions ray_options(const Flags& flags, const FunctionPython& python, const RayAddress& address,
                               runtime::ForkServer& fork_server) {
  RayExecutorOptions options{.data_directory = flags.data_directory};
  options.sidecar = {.command = {python.path, "-m", "uccp_ray"},
                     .address = address.text,
                     .log_path = flags.data_directory + "/ray.log",
                     .fork_server = &fork_server};
  return options;
}

struct ExecutorParts {
  FunctionPython python;
  RayAddress ray;
  ContainerExecutorOptions containers;
  ObjectServer* objects = nullptr;
  runtime::ForkServer* fork_server = nullptr;
};

// Who runs what; what one does not run it hands to the one before it.
struct Executors {
  std::unique_ptr<FunctionExecutor> functions;
  std::unique_ptr<RayJobExecutor> jobs;
  std::unique_ptr<ContainerExecutor> containers;
  std::unique_ptr<ProcessExecutor> processes;
  std::unique_ptr<RayExecutor> on_ray;  // null: functions run natively

  ExecutorBackend& front() { return on_ray != nullptr ? static_cast<ExecutorBackend&>(*on_ray) : *functions; }
};

Result<Executors> make_executors(Reactor& loop, const Clock& clock, FileSystem& files, const Flags& flags,
                                 const ExecutorParts& parts, Agent& agent) {
  Executors made;
  made.functions =
      std::make_unique<FunctionExecutor>(loop, clock, function_options(flags, parts.python, parts.objects), agent);
  const char* token = std::getenv("RAY_AUTH_TOKEN");
  made.jobs = std::make_unique<RayJobExecutor>(
      RayJobOptions{.python = parts.python.path, .address = parts.ray.text, .token = token == nullptr ? "" : token},
      *made.functions);
  made.containers = std::make_unique<ContainerExecutor>(parts.containers, *made.jobs);
  UCCP_TRY(made.processes, ProcessExecutor::open(loop, clock, files,
                                                 {.data_directory = flags.data_directory,
                                                  .allow_root_tasks = flags.allow_root_tasks,
                                                  .capacity = capacity_of(flags),
                                                  .fork_server = parts.fork_server},
                                                 *made.containers));
  made.containers->attach(*made.processes);
  made.jobs->attach(*made.containers);
  UCCP_RETURN_IF_ERROR(made.functions->attach(*made.jobs));
  if (parts.ray.door == RayDoor::kDriver || parts.ray.door == RayDoor::kClient) {
    made.on_ray = std::make_unique<RayExecutor>(loop, clock,
                                                ray_options(flags, parts.python, parts.ray, *parts.fork_server), agent);
    UCCP_RETURN_IF_ERROR(made.on_ray->attach(*made.functions));
  }
  return made;
}

Status serve(const Flags& flags, Guard& guard, runtime::ForkServer& fork_server) {
  static const runtime::RealClock clock;
  // Never destroyed: a late callback of gRPC may still post to it while the process ends.
  Reactor& loop = *new Reactor(clock);
  static runtime::PosixFileSystem files;
  SeededRandom random(runtime::SystemRandom().next());
  Agent* agent_pointer = nullptr;
  runtime::SignalWatcher signals({SIGTERM, SIGINT, SIGHUP}, &loop, [&](int number) {
    // Ctrl-C counts only for an agent that leads the foreground of a terminal: as a child of `uccp dev` it outlives the
    // server, and tasks go on.
    if (number == SIGINT && (getpid() != getpgrp() || tcgetpgrp(STDIN_FILENO) != getpgrp())) return;
    if (agent_pointer != nullptr) agent_pointer->shutdown(kShutdownGraceMs, "signal " + std::to_string(number));
  });
  AgentOptions options = agent_options(flags);
  DeviceSources sources = device_sources(flags, files);
  UCCP_TRY(options.devices, devices_of(flags, files, sources));
  const bool has_gpus = !options.devices.gpus.empty();
  CertificateKeeper certificates(
      loop, clock, files,
      {.directory = flags.data_directory + "/identity", .configured = [&] { return find_server(flags.server); }});
  GrpcLink link(loop, random, {.find_server = [&] { return certificates.find_server(); }});
  UCCP_TRY(const FunctionPython python, find_python(flags));
  options.runs_functions = !python.path.empty();
  if (options.runs_functions) options.labels.try_emplace(std::string(functions::kRuntimeLabel), python.runtime);
  UCCP_TRY(const RayAddress ray_at, find_ray(flags, python, options));
  const ContainerExecutorOptions containers_of = container_options(flags);
  UCCP_RETURN_IF_ERROR(find_containers(flags, containers_of, options));
  UCCP_TRY(auto agent, Agent::open(loop, clock, files, link, std::move(options), [&] { loop.stop(); }));
  const auto objects = share_objects(flags.objects,
                                     {.data_directory = flags.data_directory,
                                      .zone = flags.zone,
                                      .host_name = host_name(),
                                      .memory_bytes = capacity_of(flags).memory_bytes},
                                     clock, files);
  UCCP_TRY(Executors executors, make_executors(loop, clock, files, flags,
                                               {python, ray_at, containers_of, objects.get(), &fork_server}, *agent));
  ProcessExecutor* const executor = executors.processes.get();
  if (executor->groups().layout().usable()) {
    UCCP_RETURN_IF_ERROR(guard.watch(executor->groups().agent_directories()));
  }
  agent->set_isolation(executor->isolation_note() + "; " + executor->limits_note());
  log::info("agent started", {{"data", flags.data_directory},
                              {"functions", python.runtime},
                              {"ray", ray_at.text},
                              {"isolation", executor->isolation_note()},
                              {"limits", executor->limits_note()}});
  agent_pointer = agent.get();
  loop.post([&] {
    agent->start(executors.front());
    certificates.start([&link](const auto& method, auto request, int64_t timeout_ms,
                               auto done) { link.call(method, std::move(request), timeout_ms, std::move(done)); },
                       [&link] { link.reconnect("the agent has another certificate"); });
  });
  std::optional<DeviceWatch> watch;
  if (has_gpus) {
    watch.emplace(std::move(sources), parse_duration_ms(flags.device_interval), [&](std::vector<api::WorkerGpu> seen) {
      loop.post([&, seen = std::move(seen)] {
        if (agent_pointer != nullptr) agent_pointer->devices_seen(seen);
      });
    });
  }
  loop.run();
  watch.reset();
  certificates.stop();
  link.stop();
  executors = {};
  agent_pointer = nullptr;
  log::info("agent ended");
  return {};
}

int main_program(int argc, char** argv) {
  CLI::App app("UCCP worker: runs attempts of tasks on this machine");
  Flags flags;
  add_flags(app, flags);
  CLI11_PARSE(app, argc, argv);
  log::Options options{.service = "uccp-agent"};
  if (!log::parse_level(flags.log_level, options.level) || parse_duration_ms(flags.exit_after_alone) < 0) {
    std::fprintf(stderr, "uccp-agent: --log-level or --exit-after-alone is malformed; see --help\n");
    return 2;
  }
  if (parse_duration_ms(flags.device_interval) < kDeviceIntervalMinMs) {
    std::fprintf(stderr, "uccp-agent: --device-interval %s is none of 100ms or more, such as 10s\n",
                 flags.device_interval.c_str());
    return 2;
  }
  if (!parse_type(flags.type)) {
    std::fprintf(stderr, "uccp-agent: --type %s is none of those that --help names\n", flags.type.c_str());
    return 2;
  }
  for (const std::string& taint : flags.taints) {
    if (parse_taint(taint)) continue;
    std::fprintf(stderr, "uccp-agent: --taint %s is malformed; it is KEY[=VALUE][:EFFECT]\n", taint.c_str());
    return 2;
  }
  if (const std::string wrong = wrong_settings(flags.objects); !wrong.empty()) {
    std::fprintf(stderr, "uccp-agent: %s\n", wrong.c_str());
    return 2;
  }
  log::configure(options);
  // gRPC 1.51 cannot be told to speak TLS 1.3 only: a TLS 1.2 suite that no certificate of ours can use does it.
  setenv("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES128-GCM-SHA256", 1);
  signal(SIGPIPE, SIG_IGN);
  runtime::PosixFileSystem files;
  std::error_code error;
  flags.data_directory = std::filesystem::absolute(flags.data_directory, error).string();
  if (Status status = files.make_directories(flags.data_directory); !status.is_ok()) {
    std::fprintf(stderr, "uccp-agent: %s\n", status.message().c_str());
    return 1;
  }
  chmod(flags.data_directory.c_str(), 0700);
  if (!take_lock(flags.data_directory)) return 0;
  auto guard = Guard::start();
  if (!guard) {
    std::fprintf(stderr, "uccp-agent: %s\n", guard.error().message().c_str());
    return 1;
  }
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  auto fork_server = runtime::ForkServer::start(self.parent_path() / "uccp-spawn");
  if (!fork_server) {
    std::fprintf(stderr, "uccp-agent: %s\n", fork_server.error().message().c_str());
    return 1;
  }
  // After these two, which are forked while there are no threads. The link makes a channel a connection.
  doors::hold_grpc_threads();
  if (Status status = serve(flags, *guard, **fork_server); !status.is_ok()) {
    std::fprintf(stderr, "uccp-agent: %s\n", status.to_string().c_str());
    return 1;
  }
  unlink((flags.data_directory + "/agent.pid").c_str());
  return 0;
}

}  // namespace
}  // namespace uccp::agent

int main(int argc, char** argv) { return uccp::agent::main_program(argc, argv); }
