#include "services/admin/admin_service.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/hash.h"
#include "call/command.h"
#include "machine/machine.h"
#include "services/admin/build_info.h"
#include "services/feature_types.h"
#include "services/message_types.h"

namespace uccp::admin {
namespace {

using call::CallPtr;

constexpr std::string_view kHidden = "***";

std::string method_name(std::string_view rpc) { return "uccp.v1.Administration/" + std::string(rpc); }

// Text to the JSON value of its type; what does not parse stays text.
void set_value(google::protobuf::Value& out, std::string_view text, std::string_view type) {
  if (type == "bool" && (text == "true" || text == "false")) return out.set_bool_value(text == "true");
  if (type == "int" || type == "double") {
    double number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return out.set_number_value(number);
  }
  out.set_string_value(std::string(text));
}

// As the configuration file has it; nothing for what is no single value.
std::optional<std::string> text_of(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kStringValue: return value.string_value();
    case google::protobuf::Value::kBoolValue: return value.bool_value() ? "true" : "false";
    case google::protobuf::Value::kNumberValue: {
      std::array<char, 64> text;
      const auto end =
          std::to_chars(text.data(), text.data() + text.size(), value.number_value(), std::chars_format::fixed).ptr;
      return std::string(text.data(), end);
    }
    case google::protobuf::Value::kStructValue:
    case google::protobuf::Value::kListValue: return std::nullopt;
    default: return "";
  }
}

}  // namespace

AdminService::AdminService(AdminEnvironment environment) : env_(std::move(environment)), started_(env_.clock.boot()) {}

void AdminService::add_handlers(call::HandlerTable& handlers) {
  handlers.add_parsed<v1::GetHealthRequest>(
      method_name("GetHealth"), [this](const CallPtr& call, v1::GetHealthRequest r) { get_health(call, r); });
  handlers.add_parsed<v1::GetMetricsRequest>(
      method_name("GetMetrics"), [this](const CallPtr& call, v1::GetMetricsRequest r) { get_metrics(call, r); });
  handlers.add_parsed<v1::GetVersionRequest>(method_name("GetVersion"),
                                             [this](const CallPtr& call, v1::GetVersionRequest) { get_version(call); });
  handlers.add_parsed<v1::GetConfigurationRequest>(
      method_name("GetConfiguration"),
      [this](const CallPtr& call, v1::GetConfigurationRequest r) { get_configuration(call, r); });
  if (env_.proposer == nullptr) return;
  handlers.add(method_name("UpdateConfiguration"),
               [this](const CallPtr& call, const std::string& bytes) { update_configuration(call, bytes); });
}

void AdminService::get_health(const CallPtr& call, const v1::GetHealthRequest& request) {
  const HealthRegistry::Report report = env_.health.report();
  v1::Health health;
  health.set_status(report.status);
  // Who is not known learns no more than up or down.
  if (call->principal.kind == call::Principal::Kind::kAnonymous) return call->reply(health.SerializeAsString());
  health.set_reason(report.reason);
  health.set_ready(report.ready);
  for (const HealthRegistry::Component& part : report.components) {
    if (!request.component().empty() && request.component() != part.name) continue;
    v1::ComponentHealth& out = *health.add_components();
    out.set_name(part.name);
    out.set_status(part.state.status);
    out.set_reason(part.state.reason);
  }
  if (!request.component().empty()) {
    const bool known = health.components_size() == 1;
    health.set_status(known ? health.components(0).status() : v1::HEALTH_STATUS_UNSPECIFIED);
    health.set_reason(known ? health.components(0).reason()
                            : "this node has no component '" + request.component() + "'");
  }
  health.set_node_id(env_.node_id);
  health.set_cluster_id(env_.cluster_id);
  if (env_.groups) {
    for (v1::GroupHealth& group : env_.groups()) *health.add_groups() = std::move(group);
  }
  if (env_.nodes) {
    for (v1::NodeHealth& node : env_.nodes()) *health.add_nodes() = std::move(node);
  }
  const int64_t uptime_ms = env_.clock.boot().ms_since(started_);
  health.mutable_uptime()->set_seconds(uptime_ms / 1000);
  health.mutable_uptime()->set_nanos(static_cast<int32_t>(uptime_ms % 1000) * 1'000'000);
  call->reply(health.SerializeAsString());
}

void AdminService::get_metrics(const CallPtr& call, const v1::GetMetricsRequest& request) {
  call->reply(select_metrics(env_.metrics.text(), request.prefix()).SerializeAsString());
}

void AdminService::get_version(const CallPtr& call) {
  v1::Version version;
  version.set_version(std::string(program_version()));
  version.set_commit(std::string(program_commit()));
  version.set_build(std::string(program_build()));
  version.add_api_versions("v1");
  version.set_feature_level(
      static_cast<int32_t>(env_.feature_level ? env_.feature_level() : machine::kFeatureLevelMax));
  version.set_feature_level_max(static_cast<int32_t>(machine::kFeatureLevelMax));
  call->reply(version.SerializeAsString());
}

v1::Configuration AdminService::shown(std::string_view prefix) const {
  std::vector<SettingInForce> settings = env_.configuration.settings();
  std::ranges::sort(settings, {}, &SettingInForce::name);
  v1::Configuration configuration;
  for (const SettingInForce& in : settings) {
    if (!in.name.starts_with(prefix)) continue;
    v1::Setting& out = *configuration.add_settings();
    const auto shown = [&](const std::string& text) {
      return in.secret && !text.empty() ? kHidden : std::string_view(text);
    };
    out.set_name(in.name);
    set_value(*out.mutable_value(), shown(in.value), in.type);
    set_value(*out.mutable_default_value(), shown(in.default_value), in.type);
    out.set_source(in.source);
    out.set_type(in.type);
    out.set_dynamic(in.dynamic);
    out.set_secret(in.secret);
    out.set_description(in.description);
  }
  const auto row = env_.cluster_settings ? env_.cluster_settings() : std::nullopt;
  if (row) *configuration.mutable_update_time() = row->update_time();
  // What the cluster sets has a number; the rest is over what is shown, since a hash of a secret would let it be
  // guessed.
  configuration.set_etag(std::to_string(row ? row->revision() : 0) + "-" +
                         std::to_string(hash64(configuration.SerializeAsString())));
  return configuration;
}

void AdminService::get_configuration(const CallPtr& call, const v1::GetConfigurationRequest& request) {
  const v1::Configuration configuration = shown(request.prefix());
  if (configuration.settings().empty() && !request.prefix().empty()) {
    return call->finish(Status(Code::kNotFound, "SETTING_NOT_FOUND",
                               "no setting begins with '" + request.prefix() + "'; see docs/settings.md")
                            .with_resource("setting", request.prefix()));
  }
  call->reply(configuration.SerializeAsString());
}

void AdminService::update_configuration(const CallPtr& call, const std::string& bytes) {
  const auto request = services::parse<v1::UpdateConfigurationRequest>(bytes);
  Status level = services::check_feature_level(env_.feature_level(), services::kAdministrationLevel);
  if (!level.is_ok()) return call->finish(std::move(level));
  internal::v1::UpdateSettingsCommand command;
  command.set_request_us(env_.clock.wall().us);
  // The number of the cluster's settings; nodes differ in the rest.
  command.set_if_match(request.if_match().substr(0, request.if_match().find('-')));
  std::vector<NewValue> values;
  for (const v1::Setting& setting : request.settings()) {
    const auto text = text_of(setting.value());
    if (!text) {
      return call->finish(Status(Code::kInvalid, "SETTING_INVALID",
                                 "the value of '" + setting.name() +
                                     "' is a list or an object; "
                                     "it must be a text, a number, true or false, or null for the default"));
    }
    internal::v1::SettingChange& change = *command.add_changes();
    change.set_name(setting.name());
    // Nothing is no value of any setting: it is the way back to the default.
    change.set_unset(text->empty());
    if (!change.unset()) change.set_value(*text);
    values.push_back({setting.name(), change.unset() ? std::nullopt : text});
  }
  if (Status refused = env_.configuration.check(values); !refused.is_ok()) return call->finish(std::move(refused));
  if (request.validate_only()) return call->reply(shown("").SerializeAsString());
  auto envelope =
      call::make_envelope(*call, bytes, std::string(kSettingsDomain) + ".update", command.SerializeAsString());
  envelope.scope.name_space.clear();
  env_.proposer->propose(kCoreGroup, std::move(envelope), [this, call](Result<machine::Applied> applied) {
    if (!applied) return call->finish(std::move(applied.error()));
    env_.configuration.refresh([this, call] { call->reply(shown("").SerializeAsString()); });
  });
}

// --- metrics --------------------------------------------------------------------------------------------------------

namespace {

// name{a="b",c="d"} value, as our registry writes it.
struct Sample {
  std::string_view name;
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};

bool parse_sample(std::string_view line, Sample& out) {
  const size_t name_end = line.find_first_of("{ ");
  if (name_end == std::string_view::npos) return false;
  out.name = line.substr(0, name_end);
  std::string_view rest = line.substr(name_end);
  if (rest.starts_with('{')) {
    rest.remove_prefix(1);
    while (!rest.empty() && rest.front() != '}') {
      const size_t equal = rest.find("=\"");
      if (equal == std::string_view::npos) return false;
      std::string label(rest.substr(0, equal));
      rest.remove_prefix(equal + 2);
      std::string value;
      while (!rest.empty() && rest.front() != '"') {
        if (rest.front() == '\\' && rest.size() > 1) {
          rest.remove_prefix(1);
          value.push_back(rest.front() == 'n' ? '\n' : rest.front());
        } else {
          value.push_back(rest.front());
        }
        rest.remove_prefix(1);
      }
      if (rest.empty()) return false;
      rest.remove_prefix(1);
      if (rest.starts_with(',')) rest.remove_prefix(1);
      out.labels.emplace_back(std::move(label), std::move(value));
    }
    if (rest.empty()) return false;
    rest.remove_prefix(1);
  }
  if (!rest.starts_with(' ')) return false;
  rest.remove_prefix(1);
  return std::from_chars(rest.data(), rest.data() + rest.size(), out.value).ec == std::errc();
}

// Sum and count of a histogram follow each other; buckets are left to the text.
void add_sample(const Sample& sample, std::string_view family, std::string_view type, v1::GetMetricsResponse& out) {
  const std::string_view part = sample.name.substr(family.size());
  if (part == "_bucket") return;
  if (part == "_count" && out.metrics_size() > 0) {
    out.mutable_metrics(out.metrics_size() - 1)->set_value(sample.value);
    return;
  }
  v1::MetricValue& value = *out.add_metrics();
  value.set_name(std::string(family));
  value.set_type(std::string(type));
  for (const auto& [label, text] : sample.labels) (*value.mutable_labels())[label] = text;
  if (part == "_sum") value.set_sum(sample.value);
  else value.set_value(sample.value);
}

}  // namespace

v1::GetMetricsResponse select_metrics(std::string_view text, std::string_view prefix) {
  constexpr std::string_view kHelp = "# HELP ";
  constexpr std::string_view kType = "# TYPE ";
  v1::GetMetricsResponse out;
  std::string_view family;
  std::string_view type;
  bool wanted = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (line.starts_with(kHelp)) {
      family = line.substr(kHelp.size(), line.find(' ', kHelp.size()) - kHelp.size());
      wanted = family.starts_with(prefix);
    }
    if (!wanted) continue;
    out.mutable_text()->append(line).push_back('\n');
    if (line.starts_with(kType)) type = line.substr(line.rfind(' ') + 1);
    Sample sample;
    if (!line.starts_with('#') && parse_sample(line, sample) && sample.name.starts_with(family)) {
      add_sample(sample, family, type, out);
    }
  }
  return out;
}

}  // namespace uccp::admin
