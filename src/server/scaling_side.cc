#include "server/scaling_side.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "server/scaling_groups.h"
#include "server/system_events.h"
#include "uccp/v1/events.pb.h"

namespace uccp::server {
namespace {

constexpr uint64_t kFileBytesMax = 1u << 20;
constexpr const char* kTopic = "uccp.scaling";

Status bad_key(const Config& config, const std::string& key, const std::string& what) {
  return Status(Code::kInvalid, "CONFIG_INVALID", key + " is '" + config.text(key) + "'; " + what);
}

Result<double> threshold_of(const Config& config) {
  const std::string& text = config.text("scaling_threshold");
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0 && value <= 1))
    return fail(bad_key(config, "scaling_threshold", "it must be a number above 0 and at most 1, such as 0.8"));
  return value;
}

Result<tasks::ScalingMetric> metric_of(const Config& config) {
  using enum tasks::ScalingMetric;
  static const std::map<std::string, tasks::ScalingMetric, std::less<>> kNames = {
      {"cpu", kCpu}, {"memory", kMemory}, {"gpu", kGpu}, {"tasks", kTasks}, {"none", kNone}};
  const auto found = kNames.find(config.text("scaling_metric"));
  if (found == kNames.end())
    return fail(bad_key(config, "scaling_metric", "it must be cpu, memory, gpu, tasks or none"));
  return found->second;
}

}  // namespace

Result<ScalingSettings> scaling_settings(const Config& config, const ServerOptions& server, FileSystem& files) {
  ScalingSettings out;
  UCCP_TRY(const double threshold, threshold_of(config));
  UCCP_TRY(const tasks::ScalingMetric metric, metric_of(config));
  UCCP_TRY(const uint64_t least, config.integer_between("min_workers", 0, kScalingWorkersMax));
  UCCP_TRY(const uint64_t most, config.integer_between("max_workers_scaling", 1, kScalingWorkersMax));
  if (least > most) return fail(bad_key(config, "min_workers", "it must be at most max_workers_scaling"));
  if (!config.boolean("enable_auto_scaling") || !config.is_set("scaling_groups")) return out;
  const std::string& path = config.text("scaling_groups");
  UCCP_TRY(const std::string json, read_file(files, path, kFileBytesMax));
  UCCP_TRY(auto groups, parse_scaling_groups(path, json, static_cast<size_t>(config.integer("max_tasks_per_worker"))));
  out.options.groups = std::move(groups.groups);
  out.workers = std::move(groups.workers);
  size_t sum = 0;
  for (const tasks::ScalingGroup& group : out.options.groups) sum += group.min;
  if (sum > most)
    return fail(bad_key(config, "max_workers_scaling", fmt::format("the groups' min alone add up to {}", sum)));
  if (server.agent_context_file.empty() && !config.is_set("scaling_context_file")) {
    return fail(bad_key(config, "scaling_context_file",
                        "it must name a context file with addresses and an agent's certificate, since scaling_groups "
                        "is set"));
  }
  tasks::AutoscalerOptions& limits = out.options.limits;
  limits.min_workers = least;
  limits.max_workers = most;
  limits.metric = metric;
  limits.threshold = threshold;
  limits.up_delay_ms = config.duration_ms("scale_up_delay");
  limits.start_timeout_ms = config.duration_ms("scale_up_timeout");
  limits.down_idle_ms = config.duration_ms("scale_down_idle");
  limits.cool_down_ms = config.duration_ms("scaling_cool_down");
  out.options.drain_ms = config.duration_ms("scale_down_deadline");
  out.options.node = "n" + std::to_string(server.node.value);
  if (config.is_set("scaling_context_file")) out.context_file = config.text("scaling_context_file");
  else out.context_file = server.agent_context_file;
  return out;
}

Result<std::unique_ptr<LocalWorkers>> open_local_workers(const ScalingSettings& settings, const ServerOptions& server,
                                                         FileSystem& files, const Clock& clock) {
  if (settings.options.groups.empty()) return std::unique_ptr<LocalWorkers>();
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "uccp-agent";
  return LocalWorkers::open({.program = program.string(),
                             .directory = server.data_dir + "/scaled",
                             .context_file = settings.context_file,
                             .groups = settings.workers},
                            files, clock);
}

void publish_scaling(const call::HandlerTable& handlers, const Clock& clock, const tasks::ScalingDecision& decision) {
  v1::Event event;
  event.set_type("scaling." + std::string(tasks::name_of(decision.kind)));
  event.set_subject(decision.group);
  event.set_key(decision.group);
  auto& fields = *event.mutable_json()->mutable_struct_value()->mutable_fields();
  fields["group"].set_string_value(decision.group);
  fields["instance"].set_string_value(decision.instance);
  fields["worker"].set_string_value(decision.worker);
  fields["cause"].set_string_value(decision.cause);
  fields["reason"].set_string_value(decision.reason);
  publish_event(handlers, clock, {"default", "default"}, kTopic, std::move(event));
}

}  // namespace uccp::server
