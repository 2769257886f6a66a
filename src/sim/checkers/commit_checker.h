// State machine safety (Ongaro 2014, figure 3.2): what a leader told others to be committed has one term for ever. Read
// off the wire, so it covers entries without a command, and leaders that end before they apply what they told.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class CommitChecker {
 public:
  explicit CommitChecker(Violations& violations) : violations_(violations) {}

  // The leader of `leader_term` told that everything up to `commit` is committed; `term_of` answers what its log has at
  // an index, nothing if that is compacted or not written yet.
  void told(GroupId id, Term leader_term, LogIndex commit,
            const std::function<std::optional<Term>(LogIndex)>& term_of) {
    Group& group = groups_[id];
    LogIndex& checked = group.checked[leader_term];
    if (commit <= checked) return;
    // The newest of what was told behind what this leader was compared with; whatever is before is the same by log
    // matching.
    auto last = group.terms.upper_bound(commit);
    if (last != group.terms.begin() && (--last)->first > checked) {
      const auto term = term_of(last->first);
      if (!term) return;
      if (*term != last->second) differ(id, leader_term, *last, *term);
    }
    checked = commit;
    if (const auto term = term_of(commit)) group.terms.try_emplace(commit, *term);
  }

 private:
  struct Group {
    std::map<LogIndex, Term> terms;    // of what was told to be committed
    std::map<Term, LogIndex> checked;  // by the leader's term
  };
  void differ(GroupId group, Term leader_term, const std::pair<const LogIndex, Term>& told, Term now) {
    violations_.add("commits", "group " + std::to_string(group.value) + " index " + std::to_string(told.first.value) +
                                   " was committed with term " + std::to_string(told.second.value) +
                                   ", and the leader of term " + std::to_string(leader_term.value) +
                                   " committed term " + std::to_string(now.value) + " there");
  }

  Violations& violations_;
  std::map<GroupId, Group> groups_;
};

}  // namespace uccp::sim
