// Contract: all methods and message plans of the platform, compiled from the linked descriptors at first use.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/method.h"
#include "call/plan.h"

namespace uccp::call {

class Contract {
 public:
  // The contract of this program. Compiles it on the first call (tens of milliseconds); aborts if it is inconsistent.
  static const Contract& get();

  // In the order of files and declarations.
  std::span<const Method> methods() const { return methods_; }
  // By "uccp.v1.TaskScheduling/ScheduleTask" or the same with a leading slash. Null if there is none.
  const Method* find(std::string_view name) const;
  // By full type name. Aborts if the contract has no such message.
  const MessagePlan& plan(std::string_view type) const;
  const MessagePlan* find_plan(std::string_view type) const { return plans_.find(type); }
  // Names of all services, sorted.
  std::span<const std::string> services() const { return services_; }

  Contract(const Contract&) = delete;
  Contract& operator=(const Contract&) = delete;

 private:
  Contract();

  PlanSet plans_;
  std::vector<Method> methods_;
  std::vector<std::string> services_;
  std::map<std::string, const Method*, std::less<>> by_name_;
};

}  // namespace uccp::call
