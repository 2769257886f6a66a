#include "server/live_settings.h"

#include <algorithm>

#include "base/log.h"
#include "services/admin/settings_state.h"

namespace uccp::server {
namespace {

constexpr int64_t kLookMs = 1'000;
constexpr uint64_t kFileBytesMax = 1u << 20;

Status fixed(const std::string& name) {
  return Status(Code::kFailedPrecondition, "SETTING_FIXED",
                "'" + name + "' is read when a node starts: set it in the configuration of each node and restart it")
      .with_help("configuration.md");
}

}  // namespace

LiveSettings::LiveSettings(Config config, FileSystem& files, Executor& work)
    : files_(files), work_(work), own_(std::move(config)) {}

LiveSettings::~LiveSettings() { stop(); }

void LiveSettings::start(std::function<machine::GroupView()> view) {
  view_ = std::move(view);
  if (!own_.file().empty()) yaml_ = read_file(files_, own_.file(), kFileBytesMax).value_or("");
  work_.post([this] { look_again(); });
}

void LiveSettings::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
}

Config LiveSettings::in_force() const {
  std::lock_guard lock(mutex_);
  return own_.with_cluster(cluster_);
}

std::vector<admin::SettingInForce> LiveSettings::settings() const {
  static constexpr std::string_view kTypes[] = {"string", "int", "int", "bool", "duration", "string"};
  const Config now = in_force();
  std::vector<admin::SettingInForce> out;
  for (const ConfigKey& key : config_keys()) {
    const Config::Value& value = now.values().find(key.name)->second;
    out.push_back({.name = std::string(key.name),
                   .value = value.text,
                   .default_value = std::string(key.fallback),
                   .source = std::string(source_name(value.source)),
                   .type = std::string(kTypes[static_cast<size_t>(key.type)]),
                   .description = std::string(key.help),
                   .dynamic = key.effect == KeyEffect::kLive,
                   .secret = key.type == KeyType::kSecret});
  }
  return out;
}

Status LiveSettings::check(const std::vector<admin::NewValue>& values) const {
  Config own;
  std::map<std::string, std::string> cluster;
  {
    std::lock_guard lock(mutex_);
    own = own_;
    cluster = cluster_;
  }
  for (const admin::NewValue& value : values) {
    UCCP_RETURN_IF_ERROR(Config::check(value.name, value.text.value_or("")));
    if (find_config_key(value.name)->effect != KeyEffect::kLive) return fixed(value.name);
    const Config::Value& mine = own.values().find(value.name)->second;
    if (mine.source > ConfigSource::kCluster) {
      return Status(Code::kFailedPrecondition, "SETTING_OVERRIDDEN",
                    "'" + value.name + "' is set by " + mine.origin + " of this node, which wins; change it there")
          .with_help("configuration.md");
    }
    if (value.text) cluster[value.name] = *value.text;
    else cluster.erase(value.name);
  }
  const Config then = own.with_cluster(cluster);
  for (const Group& group : groups_) UCCP_RETURN_IF_ERROR(group.parse(then));
  return Status::ok();
}

void LiveSettings::refresh(std::function<void()> done) {
  work_.post([this, done = std::move(done)] {
    look();
    done();
  });
}

void LiveSettings::look_again() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
  }
  look();
  work_.post_after(kLookMs, [this] { look_again(); });
}

void LiveSettings::look() {
  const Config before = in_force();
  Config own;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    own = own_;
  }
  const auto yaml = own.file().empty() ? Result<std::string>(yaml_) : read_file(files_, own.file(), kFileBytesMax);
  if (yaml && *yaml != yaml_) {
    yaml_ = *yaml;
    if (auto changed = own.with_file(yaml_)) own = std::move(*changed);
    else
      log::error("the configuration file cannot be used; what was in force stays",
                 {{"reason", changed.error().message()}});
  }
  const auto row = admin::kClusterSettings.get(view_(), {}, "");
  std::map<std::string, std::string> cluster;
  if (row) cluster.insert(row->values().begin(), row->values().end());
  Config now = own.with_cluster(cluster);
  for (const Group& group : groups_) {
    const auto differs = [&](const std::string& key) { return before.text(key) != now.text(key); };
    if (!std::ranges::any_of(group.keys, differs)) continue;
    if (const Status parsed = group.parse(now); !parsed.is_ok()) {
      log::error("a setting cannot be used; what was in force stays", {{"reason", parsed.message()}});
      continue;
    }
    group.apply(now);
    for (const std::string& key : group.keys) {
      if (differs(key))
        log::info("a setting has changed",
                  {{"key", key}, {"value", now.text(key)}, {"source", now.values().find(key)->second.origin}});
    }
  }
  for (const auto& [name, value] : now.values()) {
    const bool needs_restart = value.text != before.text(name) && find_config_key(name)->effect == KeyEffect::kActs;
    if (needs_restart && told_.insert(name + "=" + value.text).second) {
      log::warn("a setting in the configuration file takes effect at the next start", {{"key", name}});
    }
  }
  std::lock_guard lock(mutex_);
  own_ = std::move(own);
  cluster_ = std::move(cluster);
}

}  // namespace uccp::server
