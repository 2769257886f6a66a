// Which tasks run near which workers: counts for the near terms that some task asks for.
//
// A term is of one namespace: label selector of tasks and topology key. For each term that is asked for, the running
// tasks that match are counted by domain, which is the worker or the value of a label of it. Pure memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "call/listing.h"
#include "services/tasks/shapes.h"

namespace uccp::tasks {

class NearBook {
 public:
  // A running task as it counts.
  struct Resident {
    const std::string& tenant;
    const std::string& name_space;
    const LabelMap& labels;
    const WorkerView& worker;
  };
  using Visit = std::function<void(const Resident&)>;
  using ForEachResident = std::function<void(const Visit&)>;

  // From now on the terms of the demand are counted, for this class of tasks.
  void add_class(uint64_t class_number, const Demand& demand, const ForEachResident& residents);
  void remove_class(uint64_t class_number, const Demand& demand);
  void started(const Resident& resident) { count(resident, 1); }
  void ended(const Resident& resident) { count(resident, -1); }
  // Counts all anew: the labels of a worker changed.
  void recount(const ForEachResident& residents);
  bool empty() const { return terms_.empty(); }

  // Whether the worker is where the terms let the task run: those that must hold, and with `wishes` the others too. A
  // task that has to be near such as itself may begin anywhere.
  bool allows(const Demand& demand, const WorkerView& worker, bool wishes) const;
  // Classes for which the answer may have changed since this was asked last.
  std::set<uint64_t> take_changed() { return std::exchange(changed_, {}); }

 private:
  using Key =
      std::tuple<std::string, std::string, std::string, std::string>;  // tenant, namespace, selector, topology key
  struct Term {
    call::LabelSelector selector;
    std::map<std::string, int64_t> by_domain;
    int64_t total = 0;
    std::set<uint64_t> classes;
  };

  static Key key_of(const Demand& demand, const NearTerm& term) {
    return {demand.tenant, demand.name_space, term.selector, term.topology_key};
  }
  static const std::string* domain_of(const std::string& topology_key, const WorkerView& worker);
  void count(const Resident& resident, int64_t sign);
  void count_in(const Key& key, Term& term, const Resident& resident, int64_t sign);

  std::map<Key, Term> terms_;
  std::set<uint64_t> changed_;
};

}  // namespace uccp::tasks
