#include "server/scaling_groups.h"

#include <fmt/format.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>

#include "call/contract.h"
#include "call/json_codec.h"
#include "call/validate.h"
#include "services/tasks/live_tasks.h"
#include "uccp/v1/workers.pb.h"

namespace uccp::server {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

constexpr int kGroupsMax = 100;
constexpr size_t kNameMax = 40;

Status invalid(const std::string& path, const std::string& what) {
  return Status(Code::kInvalid, "SCALING_GROUPS_INVALID", "the scaling groups of " + path + ": " + what);
}

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kNameMax &&
         std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

Result<size_t> count_of(const Value& value, const std::string& key) {
  const double number = value.number_value();
  if (!value.has_number_value() || number < 0 || number > kScalingWorkersMax || number != std::floor(number))
    return fail(Code::kInvalid, "COUNT",
                fmt::format("{} must be a whole number from 0 to {}", key, kScalingWorkersMax));
  return static_cast<size_t>(number);
}

std::string type_flag(v1::WorkerType type) {
  std::string word = v1::WorkerType_Name(type).substr(std::string_view("WORKER_TYPE_").size());
  for (char& c : word) c = c == '_' ? '-' : static_cast<char>(c - 'A' + 'a');
  return word;
}

// What agents have no flags for is in an inventory.
Result<std::string> inventory_of(const v1::Worker& worker) {
  v1::Worker devices;
  *devices.mutable_gpus() = worker.gpus();
  const v1::Resources& total = worker.resources().total();
  v1::Resources& named = *devices.mutable_resources()->mutable_total();
  *named.mutable_accelerators() = total.accelerators();
  *named.mutable_extended() = total.extended();
  named.set_network_bps(total.network_bps());
  if (named.ByteSizeLong() == 0) devices.clear_resources();
  if (devices.ByteSizeLong() == 0) return std::string();
  return call::wire_to_json(call::Contract::get().plan("uccp.v1.Worker"), devices.SerializeAsString(),
                            {.emit = call::Emit::kSet});
}

std::vector<std::string> flags_of(const v1::Worker& worker) {
  const v1::Resources& total = worker.resources().total();
  std::vector<std::string> flags = {"--cpu", fmt::format("{}", total.cpu()), "--memory",
                                    std::to_string(total.memory())};
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) flags.insert(flags.end(), {flag, value});
  };
  if (total.disk() > 0) add("--disk", std::to_string(total.disk()));
  add("--pool", worker.pool());
  add("--region", worker.region());
  add("--zone", worker.zone());
  if (worker.type() != v1::WORKER_TYPE_UNSPECIFIED) add("--type", type_flag(worker.type()));
  for (const auto& [key, value] : std::map<std::string, std::string>(worker.labels().begin(), worker.labels().end()))
    add("--label", key + "=" + value);
  for (const v1::Taint& taint : worker.taints()) {
    std::string text = taint.key() + (taint.value().empty() ? "" : "=" + taint.value());
    if (taint.effect() != v1::TAINT_EFFECT_UNSPECIFIED)
      text += ":" + v1::TaintEffect_Name(taint.effect()).substr(std::string_view("TAINT_EFFECT_").size());
    add("--taint", text);
  }
  return flags;
}

// A worker as it would be registered; only what its agent can be told.
Result<v1::Worker> worker_of(const Value& value) {
  std::string json;
  if (!value.has_struct_value() || !google::protobuf::util::MessageToJsonString(value, &json).ok())
    return fail(Code::kInvalid, "WORKER", "worker must be an object");
  UCCP_TRY(const std::string wire,
           call::json_to_wire(call::Contract::get().plan("uccp.v1.Worker"), json, {.keep_output_only = true}));
  v1::Worker worker;
  if (!worker.ParseFromString(wire)) return fail(Code::kInvalid, "WORKER", "worker cannot be read");
  UCCP_RETURN_IF_ERROR(call::validate(call::Contract::get().plan("uccp.v1.Worker"), wire));
  // In a request these are the server's to say, so that they are not looked at in one.
  for (const v1::WorkerGpu& gpu : worker.gpus()) {
    UCCP_RETURN_IF_ERROR(call::validate(call::Contract::get().plan("uccp.v1.WorkerGpu"), gpu.SerializeAsString()));
    if (gpu.count() < 1) return fail(Code::kInvalid, "WORKER", "worker.gpus[].count must be at least 1");
  }
  const v1::Resources& total = worker.resources().total();
  if (total.cpu() <= 0 || total.memory() == 0)
    return fail(Code::kInvalid, "WORKER", "worker.resources.total must have cpu and memory");
  v1::Worker rest = worker;
  rest.clear_labels();
  rest.clear_taints();
  rest.clear_gpus();
  rest.clear_pool();
  rest.clear_type();
  rest.clear_region();
  rest.clear_zone();
  rest.clear_price_per_hour();
  rest.mutable_resources()->clear_total();
  if (rest.resources().ByteSizeLong() == 0) rest.clear_resources();
  if (rest.ByteSizeLong() > 0) {
    return fail(
        Code::kInvalid, "WORKER",
        "worker may have labels, taints, pool, type, region, zone, pricePerHour, gpus and resources.total only");
  }
  for (const v1::WorkerGpu& gpu : worker.gpus()) {
    v1::GpuRequest& asked = *worker.mutable_resources()->mutable_total()->mutable_gpu();
    asked.set_count(asked.count() + gpu.count());
  }
  return worker;
}

Status add_group(const Struct& object, size_t slots, ScalingGroups& out) {
  tasks::ScalingGroup group;
  LocalGroup local;
  v1::Worker worker;
  for (const auto& [key, value] : object.fields()) {
    if (key == "name") {
      group.name = value.string_value();
    } else if (key == "min") {
      UCCP_TRY(group.min, count_of(value, "min"));
    } else if (key == "max") {
      UCCP_TRY(group.max, count_of(value, "max"));
    } else if (key == "worker") {
      UCCP_TRY(worker, worker_of(value));
    } else if (key == "agentFlags") {
      for (const Value& flag : value.list_value().values()) local.flags.push_back(flag.string_value());
      if (local.flags.empty() || std::ranges::count(local.flags, "") > 0)
        return Status(Code::kInvalid, "FLAGS", "agentFlags must be a list of words, such as [\"--cache\", \"1Gi\"]");
    } else {
      return Status(Code::kInvalid, "KEY",
                    "there is no \"" + key + "\"; a group has name, min, max, worker, agentFlags");
    }
  }
  if (!is_name(group.name))
    return Status(Code::kInvalid, "NAME", fmt::format("name must be of a-z, 0-9 and -, 1 to {} characters", kNameMax));
  if (out.workers.contains(group.name)) return Status(Code::kInvalid, "NAME", "the name is that of another group");
  if (group.max < 1 || group.min > group.max)
    return Status(Code::kInvalid, "BOUNDS", "max must be at least 1 and at least min");
  if (!worker.has_resources())
    return Status(Code::kInvalid, "WORKER", "worker is missing; it says what each of the group's workers has");
  std::vector<std::string> flags = flags_of(worker);
  local.flags.insert(local.flags.begin(), flags.begin(), flags.end());
  UCCP_TRY(local.inventory, inventory_of(worker));
  group.price_per_hour = worker.price_per_hour();
  internal::v1::WorkerRow row;
  (*worker.mutable_labels())[tasks::kScalingGroupLabel] = group.name;
  *row.mutable_worker() = worker;
  group.worker = tasks::view_of(row, slots);
  out.workers[group.name] = std::move(local);
  out.groups.push_back(std::move(group));
  return Status::ok();
}

}  // namespace

Result<ScalingGroups> parse_scaling_groups(const std::string& path, const std::string& json, size_t slots) {
  Struct file;
  if (!google::protobuf::util::JsonStringToMessage(json, &file).ok())
    return fail(invalid(path, "it is not a JSON object, such as {\"groups\": [...]}"));
  const auto groups = file.fields().find("groups");
  if (groups == file.fields().end() || file.fields().size() != 1 || groups->second.list_value().values().empty())
    return fail(invalid(path, "it must have \"groups\", a list of at least one, and nothing else"));
  if (groups->second.list_value().values_size() > kGroupsMax)
    return fail(invalid(path, fmt::format("there may be {} groups at most", kGroupsMax)));
  ScalingGroups out;
  for (int i = 0; i < groups->second.list_value().values_size(); ++i) {
    const Status status = add_group(groups->second.list_value().values(i).struct_value(), slots, out);
    if (!status.is_ok()) return fail(invalid(path, fmt::format("groups[{}]: {}", i, status.message())));
  }
  return out;
}

}  // namespace uccp::server
