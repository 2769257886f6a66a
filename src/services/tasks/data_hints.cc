#include "services/tasks/data_hints.h"

#include <algorithm>

namespace uccp::tasks {

void DataHints::note(const std::string& id, const std::string& worker) {
  if (contents_.size() >= kContentsMax && !contents_.contains(id)) {
    contents_.erase(by_age_.begin()->second);
    by_age_.erase(by_age_.begin());
  }
  Holders& holders = contents_[id];
  std::erase(holders.workers, worker);
  if (holders.workers.size() == kWorkersEach) holders.workers.erase(holders.workers.begin());
  holders.workers.push_back(worker);
  by_age_.erase(holders.noted);
  holders.noted = ++notes_;
  by_age_[holders.noted] = id;
}

std::vector<std::pair<std::string, int32_t>> DataHints::workers(const std::vector<Content>& contents) const {
  std::map<std::string, uint64_t> held;
  uint64_t all = 0;
  for (const Content& content : contents) {
    all += content.bytes;
    const auto known = contents_.find(content.id);
    if (known == contents_.end()) continue;
    for (const std::string& worker : known->second.workers) held[worker] += content.bytes;
  }
  std::vector<std::pair<std::string, int32_t>> out;
  for (const auto& [worker, bytes] : held) {
    if (bytes > 0) out.emplace_back(worker, std::max<int32_t>(1, static_cast<int32_t>(bytes * 100 / all)));
  }
  return out;
}

void DataHints::clear() {
  contents_.clear();
  by_age_.clear();
}

}  // namespace uccp::tasks
