// A domain as the checkers see it: passes every call on, and tells what ran and what came of it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "machine/domain.h"

namespace uccp::sim {

class ObservedDomain final : public machine::Domain {
 public:
  // `command` with its verb; `result` as apply answers it.
  using Observer = std::function<void(machine::ApplyContext& context, std::string_view command,
                                      std::string_view payload, const machine::ApplyResult& result)>;
  // `inner` must outlive this.
  ObservedDomain(machine::Domain& inner, Observer observer) : inner_(inner), observer_(std::move(observer)) {}

  std::string_view name() const override { return inner_.name(); }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override {
    std::map<std::string, machine::ApplyFunction, std::less<>> out;
    for (auto& [verb, function] : inner_.commands()) {
      out[verb] = [this, command = std::string(inner_.name()) + "." + verb, run = std::move(function)](
                      machine::ApplyContext& context, std::string_view payload) {
        machine::ApplyResult result = run(context, payload);
        observer_(context, command, payload, result);
        return result;
      };
    }
    return out;
  }
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override {
    inner_.on_lease_expired(context, lease, key);
    observer_(context, std::string(inner_.name()) + ".expired", key, std::string());
  }

 private:
  machine::Domain& inner_;
  Observer observer_;
};

}  // namespace uccp::sim
