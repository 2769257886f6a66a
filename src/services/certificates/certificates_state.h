// What the replicated state knows of the cluster's authorities and of the certificates that its nodes show. Pure.
#pragma once

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/certificates.pb.h"

namespace uccp::certificates {

inline constexpr std::string_view kDomain = "certificates";
inline constexpr size_t kAuthoritiesMax = 8;
inline constexpr size_t kNodesMax = 64;

inline constexpr machine::TableId kAuthoritiesTable = 240;  // "" -> AuthoritiesRow
inline constexpr machine::TableId kNodeTable = 241;         // node id -> NodeCertificatesRow
inline constexpr machine::Table<internal::v1::AuthoritiesRow> kAuthorities(kAuthoritiesTable);
inline constexpr machine::Table<internal::v1::NodeCertificatesRow> kNodeCertificates(kNodeTable);

class CertificatesState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  std::vector<machine::TableNumber> tables_of_the_cluster() const override { return {kAuthoritiesTable, kNodeTable}; }
};

// The authority that signs at `now`; none: the state knows none.
const internal::v1::AuthorityRow* signing_authority(const internal::v1::AuthoritiesRow& row, WallTime now);
// Those that are trusted at `now`: the one that signs first, then the newer ones, then the older ones.
std::vector<const internal::v1::AuthorityRow*> trusted_authorities(const internal::v1::AuthoritiesRow& row,
                                                                   WallTime now);

}  // namespace uccp::certificates
