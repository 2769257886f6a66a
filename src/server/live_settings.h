// LiveSettings: the configuration as it is in force, and who is told when it changes while the node runs.
//
// Sources in rising precedence: default, file, cluster (UpdateConfiguration), environment, flag. The file is looked at
// once a second, and so is what the cluster sets. Of keys that are read at the start only, a change in the file is
// logged. Threads: settings() and check() from any thread; changes are applied on the executor given.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/file_system.h"
#include "machine/key_reader.h"
#include "server/config.h"
#include "services/admin/admin_service.h"

namespace uccp::server {

class LiveSettings final : public admin::ConfigurationSource {
 public:
  LiveSettings(Config config, FileSystem& files, Executor& work);
  ~LiveSettings() override;

  // Keys that belong together: `parse` refuses values that fit the type and still make no sense, and may be asked any
  // time; `apply` is called after a change. Before start().
  struct Group {
    std::vector<std::string> keys;
    std::function<Status(const Config&)> parse;
    std::function<void(const Config&)> apply;
  };
  void add(Group group) { groups_.push_back(std::move(group)); }
  void start(std::function<machine::GroupView()> view);
  void stop();

  std::vector<admin::SettingInForce> settings() const override;
  Status check(const std::vector<admin::NewValue>& values) const override;
  void refresh(std::function<void()> done) override;

 private:
  void look();
  void look_again();
  Config in_force() const;

  FileSystem& files_;
  Executor& work_;
  std::vector<Group> groups_;
  std::function<machine::GroupView()> view_;

  mutable std::mutex mutex_;  // of what follows
  Config own_;                // without the cluster
  std::map<std::string, std::string> cluster_;
  bool stopped_ = false;

  // On the executor.
  std::string yaml_;
  std::set<std::string> told_;  // keys and values that need a restart
};

}  // namespace uccp::server
