#include "services/tasks/near_book.h"

#include <algorithm>

#include "base/check.h"

namespace uccp::tasks {

// The worker itself, or the value of a label of it; nullptr if it has not that label.
const std::string* NearBook::domain_of(const std::string& topology_key, const WorkerView& worker) {
  if (topology_key.empty()) return &worker.id;
  const auto label = worker.labels.find(topology_key);
  return label == worker.labels.end() ? nullptr : &label->second;
}

void NearBook::add_class(uint64_t class_number, const Demand& demand, const ForEachResident& residents) {
  for (const NearTerm& near : demand.near) {
    const auto [it, is_new] = terms_.try_emplace(key_of(demand, near));
    it->second.classes.insert(class_number);
    if (!is_new) continue;
    auto selector = call::LabelSelector::compile(near.selector);
    UCCP_CHECK(selector.has_value(), "selectors were checked when the task was accepted");
    it->second.selector = std::move(*selector);
    residents([&](const Resident& resident) { count_in(it->first, it->second, resident, 1); });
  }
}

void NearBook::remove_class(uint64_t class_number, const Demand& demand) {
  for (const NearTerm& near : demand.near) {
    const auto it = terms_.find(key_of(demand, near));
    if (it == terms_.end()) continue;
    it->second.classes.erase(class_number);
    if (it->second.classes.empty()) terms_.erase(it);
  }
  changed_.erase(class_number);
}

void NearBook::count_in(const Key& key, Term& term, const Resident& resident, int64_t sign) {
  if (std::get<0>(key) != resident.tenant || std::get<1>(key) != resident.name_space) return;
  if (!term.selector.matches(resident.labels)) return;
  const std::string* domain = domain_of(std::get<3>(key), resident.worker);
  if (domain == nullptr) return;
  term.total += sign;
  const auto place = term.by_domain.try_emplace(*domain, 0).first;
  place->second += sign;
  if (place->second == 0) term.by_domain.erase(place);
  changed_.insert(term.classes.begin(), term.classes.end());
}

void NearBook::count(const Resident& resident, int64_t sign) {
  if (terms_.empty()) return;
  const auto first = terms_.lower_bound({resident.tenant, resident.name_space, "", ""});
  for (auto it = first; it != terms_.end(); ++it) {
    if (std::get<0>(it->first) != resident.tenant || std::get<1>(it->first) != resident.name_space) return;
    count_in(it->first, it->second, resident, sign);
  }
}

void NearBook::recount(const ForEachResident& residents) {
  for (auto& [key, term] : terms_) {
    term.by_domain.clear();
    term.total = 0;
    changed_.insert(term.classes.begin(), term.classes.end());
  }
  residents([&](const Resident& resident) { count(resident, 1); });
}

bool NearBook::allows(const Demand& demand, const WorkerView& worker, bool wishes) const {
  return std::ranges::all_of(demand.near, [&](const NearTerm& near) {
    if (near.preferred && !wishes) return true;
    const auto it = terms_.find(key_of(demand, near));
    UCCP_CHECK(it != terms_.end(), "the terms of each class are counted");
    const Term& term = it->second;
    const std::string* domain = domain_of(near.topology_key, worker);
    const bool there = domain != nullptr && term.by_domain.contains(*domain);
    if (near.away) return !there;
    return there || (term.total == 0 && domain != nullptr && term.selector.matches(demand.labels));
  });
}

}  // namespace uccp::tasks
