// Reading the state of one group: the same interface inside apply (with the writes of the running batch) and on views.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "storage/kv.h"

namespace uccp::machine {

// Keys are relative to the group. A read error of the storage below ends the process: state that cannot be read
// cannot be served.
class KeyReader {
 public:
  virtual ~KeyReader() = default;
  virtual std::optional<std::string> get(std::string_view key) const = 0;
  // Calls `visit` for keys in [from, to) in byte order until it returns false.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  virtual void scan(std::string_view from, std::string_view to, const Visit& visit) const = 0;
};

// Where the keys of a group lie in the node's Kv: in one of two slots. A snapshot is installed into the spare one, and
// one durable pointer names the slot in use.
using StateSlot = uint8_t;
inline constexpr StateSlot kStateSlots = 2;

// Prefix of a group's keys in the node's Kv.
std::string group_prefix(GroupId group, StateSlot slot = 0);
// The first key behind all keys that begin with `prefix`; empty if there is none.
std::string prefix_end(std::string_view prefix);

// One group's state at one applied index. Copies share the view; usable from any thread.
class GroupView final : public KeyReader {
 public:
  GroupView() = default;
  GroupView(GroupId group, std::shared_ptr<const storage::KvView> view, LogIndex applied, int64_t machine_time_ms,
            StateSlot slot = 0)
      : prefix_(group_prefix(group, slot)),
        view_(std::move(view)),
        applied_(applied),
        machine_time_ms_(machine_time_ms) {}

  std::optional<std::string> get(std::string_view key) const override;
  void scan(std::string_view from, std::string_view to, const Visit& visit) const override;

  LogIndex applied() const { return applied_; }
  int64_t machine_time_ms() const { return machine_time_ms_; }

 private:
  std::string prefix_;
  std::shared_ptr<const storage::KvView> view_;
  LogIndex applied_;
  int64_t machine_time_ms_ = 0;
};

}  // namespace uccp::machine
