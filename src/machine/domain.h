// What a service's state brings to the machine: apply functions by command name.
//
// Apply runs on the loop thread, is deterministic, and cannot fail: an error it returns is the command's result, its
// writes are undone, and the result is what every repetition of the command gets.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "machine/envelope.h"
#include "machine/transaction.h"

namespace uccp::machine {

using LeaseId = uint64_t;
using TableNumber = uint16_t;

// One change of a resource, as watchers see it. Kept in the state for a while so that a watch can resume.
struct Change {
  LogIndex index;
  uint32_t sequence = 0;  // within the index
  std::string topic;      // "services", "tasks", ...
  Scope scope;
  std::string key;      // of the resource
  uint8_t kind = 0;     // the domain's own
  std::string payload;  // the domain's own, usually the resource after the change
  bool kept = true;     // false: only for those who watch just now
};

// What an apply function may use.
class ApplyContext {
 public:
  virtual ~ApplyContext() = default;
  virtual Transaction& state() = 0;
  virtual const Envelope& envelope() const = 0;
  virtual LogIndex index() const = 0;
  virtual Term term() const = 0;
  // Milliseconds of machine time: grows by what leaders' boot clocks measured, never jumps with the wall clock.
  virtual int64_t now_ms() const = 0;
  virtual void emit(std::string_view topic, std::string_view key, uint8_t kind, std::string payload) = 0;
  // As emit, for a resource outside the command's own scope.
  virtual void emit_in(const Scope& scope, std::string_view topic, std::string_view key, uint8_t kind,
                       std::string payload) = 0;

  // As emit, but not kept in the state: for a domain that has a history of its own to resume from.
  virtual void notify(std::string_view topic, std::string_view key, uint8_t kind, std::string payload) = 0;

  // Leases. `domain` gets on_lease_expired with `key` and the scope when the lease ends by time.
  virtual LeaseId create_lease(std::string_view domain, std::string_view key, int64_t ttl_ms) = 0;
  // Starts a new generation: expiries proposed for the old one are void.
  virtual void touch_lease(LeaseId lease, int64_t ttl_ms) = 0;
  virtual void delete_lease(LeaseId lease) = 0;

  const Scope& scope() const { return envelope().scope; }
};

// Serialized response, or the error that the command results in.
using ApplyResult = Result<std::string>;
using ApplyFunction = std::function<ApplyResult(ApplyContext&, std::string_view payload)>;

class Domain {
 public:
  virtual ~Domain() = default;
  // Also the prefix of its commands: "discovery" handles "discovery.register".
  virtual std::string_view name() const = 0;
  // Command verb -> function. Asked once.
  virtual std::map<std::string, ApplyFunction, std::less<>> commands() = 0;
  virtual void on_lease_expired(ApplyContext&, LeaseId /*lease*/, std::string_view /*key*/) {}
  // The state is another one than that which the last command was applied to: what the domain derived from it is void.
  virtual void on_state_opened() {}
  // Tables that say how the cluster is made. They stay as they are when the state is replaced by that of a backup.
  virtual std::vector<TableNumber> tables_of_the_cluster() const { return {}; }
};

}  // namespace uccp::machine
