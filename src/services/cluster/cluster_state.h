// The replicated table of members. Pure: runs on the loop, inside apply.
//
// Invariants: the incarnation of a node changes only after it was removed; a removed incarnation never comes back;
// there is always a node whose goal is to vote.
#pragma once

#include <string>
#include <vector>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::cluster {

// Tables of the core group; the numbers are part of the on-disk format. Key: the node's number, 8 bytes big-endian.
inline constexpr machine::TableId kMembersTable = 40;
inline constexpr machine::Table<internal::v1::MemberRow> kMembers(kMembersTable);
inline const machine::Scope kSystemScope{};
inline constexpr std::string_view kMemberTopic = "members";
enum class MemberChange : uint8_t { kAnnounced = 1, kGoal = 2 };

std::string member_key(NodeId node);
std::string node_name(NodeId node);  // "n1"
// 0 if the text is not n1, n2, ...
NodeId parse_node_name(std::string_view name);

// All rows by id, removed ones included.
std::vector<internal::v1::MemberRow> members_of(const machine::KeyReader& core);
std::optional<internal::v1::MemberRow> member_of(const machine::KeyReader& core, NodeId node);

class ClusterState final : public machine::Domain {
 public:
  std::string_view name() const override { return "cluster"; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  std::vector<machine::TableNumber> tables_of_the_cluster() const override { return {kMembersTable}; }

 private:
  static machine::ApplyResult announce(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult set_goal(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::cluster
