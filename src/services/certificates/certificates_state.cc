#include "services/certificates/certificates_state.h"

#include <algorithm>

#include "machine/stable_bytes.h"
#include "services/message_types.h"

namespace uccp::certificates {

using internal::v1::AuthoritiesRow;
using internal::v1::AuthorityRow;
using internal::v1::ReportCertificatesCommand;
using internal::v1::RotateCertificatesCommand;

namespace {

bool is_trusted(const AuthorityRow& authority, int64_t now_us) {
  return authority.trusted_until_us() == 0 || authority.trusted_until_us() > now_us;
}

void forget_the_old(AuthoritiesRow& row, int64_t now_us) {
  auto& all = *row.mutable_authorities();
  for (int i = all.size() - 1; i >= 0; --i) {
    if (!is_trusted(all[i], now_us)) all.DeleteSubrange(i, 1);
  }
}

Status add_authority(AuthoritiesRow& row, const RotateCertificatesCommand& command) {
  const bool at_once = command.old_trusted_until_us() <= command.request_us();
  const bool under_way =
      std::ranges::any_of(row.authorities(), [](const auto& a) { return a.trusted_until_us() != 0; });
  if (under_way && !at_once) {
    return Status(
               Code::kFailedPrecondition, "ROTATION_UNDER_WAY",
               "the authority before is still trusted, so another rotation would leave clients without any that they "
               "know; wait until its end (certificate list), or rotate with an overlap of 0")
        .with_help("security.md#rotation");
  }
  if (row.authorities_size() >= static_cast<int>(kAuthoritiesMax)) {
    return Status(Code::kExhausted, "AUTHORITIES_LIMIT", "there are too many authorities that are still trusted");
  }
  for (AuthorityRow& old : *row.mutable_authorities()) {
    if (old.trusted_until_us() == 0 || at_once) old.set_trusted_until_us(command.old_trusted_until_us());
  }
  if (at_once) row.clear_authorities();
  *row.add_authorities() = command.authority();
  return Status::ok();
}

machine::ApplyResult apply_rotate(machine::ApplyContext& context, std::string_view payload) {
  const auto command = services::parse<RotateCertificatesCommand>(payload);
  AuthoritiesRow row = kAuthorities.get(context.state(), {}, "").value_or(AuthoritiesRow());
  if (row.authorities_size() == 0) *row.mutable_authorities() = command.known();
  forget_the_old(row, command.request_us());
  switch (command.scope()) {
    case v1::CERTIFICATE_SCOPE_AUTHORITY:
      if (Status added = add_authority(row, command); !added.is_ok()) return std::unexpected(std::move(added));
      break;
    case v1::CERTIFICATE_SCOPE_AGENTS: row.set_agents_issued_before_us(command.request_us()); break;
    default: row.set_nodes_issued_before_us(command.request_us()); *row.mutable_node_ids() = command.node_ids();
  }
  row.set_generation(row.generation() + 1);
  kAuthorities.put(context.state(), {}, "", row);
  return machine::stable_bytes(row);
}

machine::ApplyResult apply_report(machine::ApplyContext& context, std::string_view payload) {
  const auto command = services::parse<ReportCertificatesCommand>(payload);
  size_t known = 0;
  kNodeCertificates.scan(context.state(), {}, "", "", [&](std::string_view node, const auto&) {
    known += node != command.node_id();
    return true;
  });
  if (known >= kNodesMax) {
    return fail(Code::kExhausted, "CERTIFICATE_NODES_LIMIT",
                "certificates of more nodes than a cluster has are not kept");
  }
  internal::v1::NodeCertificatesRow row;
  *row.mutable_certificates() = command.certificates();
  row.set_generation(command.generation());
  kNodeCertificates.put(context.state(), {}, command.node_id(), row);
  return std::string();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> CertificatesState::commands() {
  return {{"rotate", apply_rotate}, {"report", apply_report}};
}

const AuthorityRow* signing_authority(const AuthoritiesRow& row, WallTime now) {
  const AuthorityRow* best = nullptr;
  for (const AuthorityRow& authority : row.authorities()) {
    if (is_trusted(authority, now.us) && authority.signs_from_us() <= now.us) best = &authority;
  }
  // Clocks differ: the only one that there is signs in any case.
  if (best == nullptr && row.authorities_size() > 0) best = &*row.authorities().rbegin();
  return best;
}

std::vector<const AuthorityRow*> trusted_authorities(const AuthoritiesRow& row, WallTime now) {
  std::vector<const AuthorityRow*> out;
  const AuthorityRow* const signing = signing_authority(row, now);
  if (signing != nullptr) out.push_back(signing);
  for (int i = row.authorities_size() - 1; i >= 0; --i) {
    const AuthorityRow& authority = row.authorities(i);
    if (&authority != signing && is_trusted(authority, now.us)) out.push_back(&authority);
  }
  return out;
}

}  // namespace uccp::certificates
