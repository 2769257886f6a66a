#include "runtime/dev_pki.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/log.h"
#include "runtime/jwt.h"

namespace uccp::runtime {
namespace {

constexpr uint64_t kPemBytesMax = 64 << 10;
constexpr int kAuthorityYears = 10;
constexpr int64_t kRenewBeforeUsMax = int64_t{30} * 24 * 3600 * 1'000'000;

struct Hosts {
  std::vector<std::string> names;
  std::vector<std::string> addresses;
};

void add_host(const std::string& host, Hosts& hosts) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, host.c_str(), address.data()) != 1) continue;
    // In the form in which it is read back from a certificate.
    hosts.addresses.emplace_back(inet_ntop(family, address.data(), text.data(), text.size()));
    return;
  }
  hosts.names.push_back(host);
}

Hosts server_hosts(const DevPkiOptions& options) {
  Hosts hosts{{"localhost"}, {"127.0.0.1", "::1"}};
  std::array<char, 256> host_name{};
  if (gethostname(host_name.data(), host_name.size() - 1) == 0 && host_name[0] != '\0') {
    add_host(host_name.data(), hosts);
  }
  for (const std::string& host : options.hosts) add_host(host, hosts);
  for (auto* list : {&hosts.names, &hosts.addresses}) {
    std::ranges::sort(*list);
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  return hosts;
}

bool contains_all(std::vector<std::string> have, std::vector<std::string> want) {
  std::ranges::sort(have);
  std::ranges::sort(want);
  return std::ranges::includes(have, want);
}

class DevPkiMaker {
 public:
  DevPkiMaker(FileSystem& files, WallTime now, int64_t lifetime_s)
      : files_(files), now_(now), leaf_horizon_{now.us + renew_before_us(lifetime_s)} {}

  Status ensure_authority(const DevPkiPaths& paths, const std::string& cluster_id) {
    UCCP_RETURN_IF_ERROR(complete_replacement(paths));
    UCCP_TRY(const bool has_certificate, files_.exists(paths.ca_certificate));
    if (has_certificate) {
      // Written after its key, so the key was there: an authority that clients trust is not replaced behind their back.
      UCCP_TRY(ca_.certificate_pem, read_file(files_, paths.ca_certificate, kPemBytesMax));
      UCCP_TRY(ca_.key_pem, read_file(files_, paths.ca_key, kPemBytesMax));
      const Status lasting = check_identity(ca_, ca_.certificate_pem, {now_.us + kRenewBeforeUsMax});
      if (lasting.is_ok()) return Status::ok();
      if (lasting.reason() != "CERTIFICATE_EXPIRED") {
        return Status(lasting.code(), lasting.reason(),
                      "the authority in " + paths.ca_certificate + " cannot be used: " + lasting.message() +
                          "; restore it, or remove the directory to make a new one that clients have to trust again");
      }
      log::warn("renewing the development authority: clients need the new one", {{"path", paths.ca_certificate}});
    }
    UCCP_TRY(ca_, create_ca("UCCP development CA " + cluster_id, kAuthorityYears, now_));
    return store_identity(files_, ca_, paths.ca_certificate, paths.ca_key);
  }

  Result<PemIdentity> ensure_leaf(const std::string& certificate_path, const std::string& key_path,
                                  const CertificateRequest& request) {
    UCCP_TRY(const bool has_certificate, files_.exists(certificate_path));
    UCCP_TRY(const bool has_key, files_.exists(key_path));
    if (has_certificate && has_key) {
      PemIdentity kept;
      UCCP_TRY(kept.certificate_pem, read_file(files_, certificate_path, kPemBytesMax));
      UCCP_TRY(kept.key_pem, read_file(files_, key_path, kPemBytesMax));
      if (still_good(kept, request)) return kept;
      log::info("renewing a development certificate", {{"path", certificate_path}});
    }
    UCCP_TRY(PemIdentity made, issue_certificate(ca_, request, now_));
    UCCP_RETURN_IF_ERROR(store_identity(files_, made, certificate_path, key_path));
    return made;
  }

  Result<std::string> ensure_token_key(const std::string& path) {
    UCCP_TRY(const bool exists, files_.exists(path));
    if (exists) {
      UCCP_TRY(std::string kept, read_file(files_, path, kPemBytesMax));
      UCCP_RETURN_IF_ERROR(TokenSigner::from_pem(kept));
      return kept;
    }
    UCCP_TRY(std::string made, TokenSigner::generate_key_pem());
    UCCP_RETURN_IF_ERROR(write_file_atomically(files_, path, made));
    return made;
  }

  const PemIdentity& authority() const { return ca_; }

 private:
  bool still_good(const PemIdentity& kept, const CertificateRequest& request) const {
    // The first authority signs. While it replaces another both are trusted, and what that one signed ends with it.
    const std::vector<std::string> authorities = split_pem(ca_.certificate_pem);
    if (authorities.empty() || !check_identity(kept, authorities.front(), leaf_horizon_).is_ok()) return false;
    const Result<CertificateInfo> info = inspect_certificate(kept.certificate_pem);
    return info && info->common_name == request.common_name && info->uris == request.uris &&
           contains_all(info->organizations, request.organizations) &&
           contains_all(info->dns_names, request.dns_names) && contains_all(info->ip_addresses, request.ip_addresses);
  }

  // A crash may have come between the two files of a new authority.
  Status complete_replacement(const DevPkiPaths& paths) {
    UCCP_TRY(const bool begun, files_.exists(paths.ca_next));
    if (!begun) return Status::ok();
    UCCP_TRY(const std::string both, read_file(files_, paths.ca_next, kPemBytesMax));
    const size_t key = both.find("-----BEGIN PRIVATE KEY");
    if (key == std::string::npos) return files_.remove(paths.ca_next);
    UCCP_RETURN_IF_ERROR(
        store_identity(files_, {both.substr(0, key), both.substr(key)}, paths.ca_certificate, paths.ca_key));
    return files_.remove(paths.ca_next);
  }

  FileSystem& files_;
  const WallTime now_;
  const WallTime leaf_horizon_;
  PemIdentity ca_;
};

CertificateRequest client_request(const DevPkiOptions& options, const std::string& name) {
  return {.common_name = name,
          .organizations = {name},
          .uris = {principal_uri(options.tenant, name)},
          .seconds = options.lifetime_s,
          .use = CertificateUse::kClient};
}

}  // namespace

DevPkiPaths dev_pki_paths(const std::string& directory) {
  const auto at = [&](std::string_view name) { return directory + "/" + std::string(name); };
  return {.ca_certificate = at("ca.crt"),
          .ca_key = at("ca.key"),
          .ca_sealed = at("ca.sealed"),
          .ca_next = at("ca.next"),
          .server_certificate = at("server.crt"),
          .server_key = at("server.key"),
          .admin_certificate = at("admin.crt"),
          .admin_key = at("admin.key"),
          .agent_certificate = at("agent.crt"),
          .agent_key = at("agent.key"),
          .node_certificate = at("node.crt"),
          .node_key = at("node.key"),
          .token_key = at("token.key")};
}

int64_t renew_before_us(int64_t lifetime_s) { return std::min(kRenewBeforeUsMax, lifetime_s * 1'000'000 / 3); }

Status store_identity(FileSystem& files, const PemIdentity& identity, const std::string& certificate_path,
                      const std::string& key_path) {
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, key_path, identity.key_pem));
  return write_file_atomically(files, certificate_path, identity.certificate_pem);
}

Status replace_authority(FileSystem& files, const PemIdentity& authority, const DevPkiPaths& paths) {
  UCCP_RETURN_IF_ERROR(write_file_atomically(files, paths.ca_next, authority.certificate_pem + authority.key_pem));
  UCCP_RETURN_IF_ERROR(store_identity(files, authority, paths.ca_certificate, paths.ca_key));
  return files.remove(paths.ca_next);
}

PkiRequests pki_requests(const DevPkiOptions& options) {
  const Hosts hosts = server_hosts(options);
  PkiRequests out;
  out.server = {.common_name = "uccp-server",
                .dns_names = hosts.names,
                .ip_addresses = hosts.addresses,
                .seconds = options.lifetime_s,
                .use = CertificateUse::kServer};
  out.node = {.common_name = "node-" + std::to_string(options.node.value),
              .organizations = {"node"},
              .dns_names = hosts.names,
              .ip_addresses = hosts.addresses,
              .uris = {node_uri(options.cluster_id, options.node)},
              .seconds = options.lifetime_s,
              .use = CertificateUse::kServerAndClient};
  out.admin = client_request(options, "admin");
  out.agent = client_request(options, "agent");
  return out;
}

Result<DevPki> ensure_dev_pki(FileSystem& files, const Clock& clock, const DevPkiOptions& options) {
  UCCP_RETURN_IF_ERROR(files.make_directories(options.directory));
  DevPki pki;
  pki.paths = dev_pki_paths(options.directory);
  const DevPkiPaths& paths = pki.paths;
  DevPkiMaker maker(files, clock.wall(), options.lifetime_s);
  UCCP_RETURN_IF_ERROR(maker.ensure_authority(paths, options.cluster_id));
  pki.ca = maker.authority();
  const PkiRequests wanted = pki_requests(options);
  UCCP_TRY(pki.server, maker.ensure_leaf(paths.server_certificate, paths.server_key, wanted.server));
  UCCP_TRY(pki.node, maker.ensure_leaf(paths.node_certificate, paths.node_key, wanted.node));
  UCCP_TRY(pki.admin, maker.ensure_leaf(paths.admin_certificate, paths.admin_key, wanted.admin));
  UCCP_TRY(pki.agent, maker.ensure_leaf(paths.agent_certificate, paths.agent_key, wanted.agent));
  UCCP_TRY(pki.token_key_pem, maker.ensure_token_key(paths.token_key));
  return pki;
}

}  // namespace uccp::runtime
