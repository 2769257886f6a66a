// The methods of Administration that concern one node: GetHealth, GetMetrics, GetVersion, GetConfiguration; and
// UpdateConfiguration.
//
// No state of its own; answers at once on the door's thread, a change when it is in force on this node. Must outlive
// every call. The methods without a handler here are unimplemented.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "call/handler.h"
#include "machine/ports.h"
#include "services/admin/health_registry.h"
#include "services/admin/settings_state.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::admin {

// One setting as the server knows it. Values are text in the form of the configuration file.
struct SettingInForce {
  std::string name;
  std::string value;
  std::string default_value;
  std::string source;  // default, file, environment, flag, cluster
  std::string type;    // bool, int, double, string, duration, bytes, list
  std::string description;
  bool dynamic = false;
  bool secret = false;
};

// What somebody wants a setting to be; without a text: what the nodes' own configuration says.
struct NewValue {
  std::string name;
  std::optional<std::string> text;
};

class ConfigurationSource {
 public:
  virtual ~ConfigurationSource() = default;
  // Errors: not_found SETTING_NOT_FOUND; invalid SETTING_INVALID and others about a value; failed_precondition
  // SETTING_FIXED for one that is read at a start only, SETTING_OVERRIDDEN for one that a flag or a variable sets.
  virtual Status check(const std::vector<NewValue>& values) const = 0;
  // Takes over what the replicated state says; then `done` on any thread.
  virtual void refresh(std::function<void()> done) = 0;
  // All settings, in any order. Callable from any thread.
  virtual std::vector<SettingInForce> settings() const = 0;
};

// Everything must outlive the service.
struct AdminEnvironment {
  const HealthRegistry& health;
  MetricsRegistry& metrics;
  ConfigurationSource& configuration;
  const Clock& clock;
  std::string node_id;
  std::string cluster_id;
  std::function<std::vector<v1::GroupHealth>()> groups;  // may be empty
  std::function<std::vector<v1::NodeHealth>()> nodes;    // may be empty
  std::function<uint32_t()> feature_level;               // of the replicated state; may be empty
  machine::Proposer* proposer = nullptr;                 // null: settings cannot be changed
  std::function<std::optional<internal::v1::ClusterSettingsRow>()> cluster_settings;  // may be empty
};

class AdminService {
 public:
  explicit AdminService(AdminEnvironment environment);
  void add_handlers(call::HandlerTable& handlers);

 private:
  void get_health(const call::CallPtr& call, const v1::GetHealthRequest& request);
  void get_metrics(const call::CallPtr& call, const v1::GetMetricsRequest& request);
  void get_version(const call::CallPtr& call);
  void get_configuration(const call::CallPtr& call, const v1::GetConfigurationRequest& request);
  void update_configuration(const call::CallPtr& call, const std::string& bytes);
  v1::Configuration shown(std::string_view prefix) const;

  const AdminEnvironment env_;
  const BootTime started_;
};

// The series in a Prometheus text of families whose name begins with `prefix`, and that part of the text. Histograms
// become one entry with count and sum.
v1::GetMetricsResponse select_metrics(std::string_view text, std::string_view prefix);

}  // namespace uccp::admin
