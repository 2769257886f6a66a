#include "node/digest_check.h"

#include <algorithm>

namespace uccp::node {
namespace {

constexpr size_t kIndexesKept = 16;

template <typename Map>
void keep_newest(Map& map) {
  while (map.size() > kIndexesKept) map.erase(map.begin());
}

bool majority_has(const std::set<NodeId>& voters, const std::map<NodeId, Digest>& reports, const Digest& digest) {
  const auto agrees = [&](NodeId voter) {
    const auto found = reports.find(voter);
    return found != reports.end() && found->second == digest;
  };
  return 2 * static_cast<size_t>(std::ranges::count_if(voters, agrees)) > voters.size();
}

}  // namespace

void DigestCheck::own(LogIndex index, const Digest& digest) {
  own_[index] = digest;
  keep_newest(own_);
}

bool DigestCheck::contradicts(const DigestReport& verdict) const {
  const auto found = own_.find(verdict.index);
  return verdict.majority && found != own_.end() && found->second != verdict.digest;
}

std::optional<DigestReport> DigestCheck::report(NodeId from, const DigestReport& report,
                                                const raft::Membership& membership) {
  if (!membership.contains(from)) return std::nullopt;
  auto& reports = reports_[report.index];
  reports[from] = report.digest;
  const bool differ = std::ranges::any_of(reports, [&](const auto& other) { return other.second != report.digest; });
  std::optional<DigestReport> verdict;
  if (differ) {
    verdict = DigestReport{report.index, {}, false};
    for (const auto& [node, digest] : reports) {
      if (!majority_has(membership.voters, reports, digest)) continue;
      verdict = DigestReport{report.index, digest, true};
      break;
    }
  }
  keep_newest(reports_);
  return verdict;
}

void DigestCheck::clear() {
  own_.clear();
  reports_.clear();
}

}  // namespace uccp::node
