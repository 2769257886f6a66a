#include "server/certificate_side.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"
#include "base/log.h"
#include "runtime/os_random.h"
#include "runtime/pki.h"
#include "services/certificates/certificates_state.h"
#include "services/message_types.h"

namespace uccp::server {
namespace {

using internal::v1::AuthoritiesRow;
using internal::v1::AuthorityRow;

constexpr int64_t kLookMs = 1'000;
constexpr uint64_t kFileBytesMax = 1u << 20;
constexpr int kAuthorityYears = 10;
constexpr int64_t kAlertEveryUs = int64_t{24} * 3600 * 1'000'000;
constexpr int64_t kRevocationListS = 24 * 3600;

std::string seal_context(const std::string& certificate_pem) {
  const auto info = runtime::inspect_certificate(certificate_pem);
  return "authority " + (info ? info->fingerprint : "");
}

// When it was issued: it is valid from a little earlier.
int64_t issued_s(const runtime::CertificateInfo& info) {
  return info.not_before.us / 1'000'000 + runtime::kBackdatedSeconds;
}

}  // namespace

Result<std::string> seal_authority_key(const runtime::PemIdentity& authority, const std::string& token_key_pem) {
  runtime::SystemRandom random;
  return ClusterCrypto(token_key_pem, random).seal(authority.key_pem, seal_context(authority.certificate_pem));
}

Result<std::string> open_authority_key(const std::string& ca_pem, const std::string& sealed,
                                       const std::string& token_key_pem) {
  runtime::SystemRandom random;
  return ClusterCrypto(token_key_pem, random).open(sealed, seal_context(ca_pem));
}

// Whom the trusts ask that are in use. They may outlive the side in connections that are about to close.
struct CertificateSide::Revoked {
  std::mutex mutex;
  std::function<bool(const std::string&)> ask;
};

struct CertificateSide::Step {
  CertificateMaterial next;
  AuthoritiesRow row;
  bool changed = false;        // the material
  bool trust_changed = false;  // what agents are told
};

CertificateSide::CertificateSide(CertificateSources sources, const std::string& token_key_pem,
                                 CertificateEnvironment environment)
    : sources_(std::move(sources)),
      alert_before_s_(sources_.alert_before_s),
      env_(environment),
      paths_(runtime::dev_pki_paths(sources_.pki.directory)),
      crypto_(token_key_pem, environment.random),
      revoked_(std::make_shared<Revoked>()),
      issued_(env_.metrics.counter("uccp_certificates_issued_total", "Certificates that this node has signed")),
      failures_(
          env_.metrics.counter("uccp_certificate_failures_total", "Certificates or lists that could not be used")) {}

Result<std::unique_ptr<CertificateSide>> CertificateSide::make(CertificateSources sources, CertificateMaterial first,
                                                               const std::string& token_key_pem,
                                                               CertificateEnvironment environment) {
  std::unique_ptr<CertificateSide> side(new CertificateSide(std::move(sources), token_key_pem, environment));
  if (!side->sources_.client_pins.empty() && side->sources_.authority_file.empty()) {
    return fail(Code::kInvalid, "CONFIG_INVALID",
                "tls_client_pins goes with tls_ca_file: keys of the embedded authority change by themselves");
  }
  if (!side->sources_.crl_file.empty()) {
    UCCP_TRY(first.crl_pem, read_file(environment.files, side->sources_.crl_file, kFileBytesMax));
  }
  UCCP_TRY(first.trust, side->make_trust(first));
  side->current_ = std::move(first);
  if (auto signing = side->signing_identity(side->current_.ca_pem, {})) side->signing_ = std::move(*signing);
  side->show(side->current_);
  return side;
}

CertificateSide::~CertificateSide() { stop(); }

CertificateMaterial CertificateSide::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

Result<std::shared_ptr<const PeerTrust>> CertificateSide::make_trust(const CertificateMaterial& material) const {
  UCCP_TRY(std::set<std::string> pins, parse_pins(sources_.client_pins));
  return PeerTrust::make({.ca_pem = material.ca_pem,
                          .crl_pem = material.crl_pem,
                          .revoked =
                              [revoked = revoked_](const std::string& pem) {
                                std::lock_guard lock(revoked->mutex);
                                return revoked->ask && revoked->ask(pem);
                              },
                          .pins = std::move(pins)});
}

void CertificateSide::start(CertificateHooks hooks) {
  hooks_ = std::move(hooks);
  {
    std::lock_guard lock(revoked_->mutex);
    revoked_->ask = hooks_.revoked;
  }
  env_.work.post([this] { look(); });
}

void CertificateSide::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  std::lock_guard lock(revoked_->mutex);
  revoked_->ask = nullptr;
}

Status CertificateSide::use(CertificateMaterial next) {
  UCCP_TRY(next.trust, make_trust(next));
  for (const auto& sink : sinks_) UCCP_RETURN_IF_ERROR(sink(next));
  show(next);
  std::lock_guard lock(mutex_);
  current_ = std::move(next);
  return Status::ok();
}

// --- one look -------------------------------------------------------------------------------------------------------

void CertificateSide::look() {
  Step step;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    step.next = current_;
    step.row = row_;
  }
  read_files(step);
  follow_authority(step);
  renew(step);
  if (step.changed) {
    const std::string content =
        step.next.server.certificate_pem + step.next.server.key_pem + step.next.ca_pem + step.next.crl_pem;
    if (const Status used = use(step.next); used.is_ok()) {
      refused_.clear();
      log::info("certificates replaced", {{"node", sources_.node_name}});
    } else if (std::exchange(refused_, content) != content) {
      failures_.add();
      log::error("new certificates cannot be used; those before stay in use", {{"reason", used.to_string()}});
    }
  }
  if (step.trust_changed && hooks_.trust_changed) hooks_.trust_changed();
  tell_the_cluster();
  show(current());
  timer_ = env_.work.post_after(kLookMs, [this] { look(); });
}

void CertificateSide::read_files(Step& step) {
  const std::pair<const std::string*, std::string*> all[] = {
      {&sources_.certificate_file, &step.next.server.certificate_pem},
      {&sources_.key_file, &step.next.server.key_pem},
      {&sources_.authority_file, &step.next.ca_pem},
      {&sources_.crl_file, &step.next.crl_pem}};
  for (const auto& [path, content] : all) {
    if (path->empty()) continue;
    auto now = read_file(env_.files, *path, kFileBytesMax);
    // Whoever replaces a file may have removed it first.
    if (!now || *now == *content) continue;
    *content = std::move(*now);
    step.changed = true;
    step.trust_changed |= path == &sources_.authority_file;
  }
}

Result<runtime::PemIdentity> CertificateSide::signing_identity(const std::string& ca_pem,
                                                               const AuthoritiesRow& row) const {
  const std::vector<std::string> all = runtime::split_pem(ca_pem);
  if (all.empty()) return fail(Code::kFailedPrecondition, "AUTHORITY_KEY_MISSING", "there is no authority");
  runtime::PemIdentity signing{all.front(), ""};
  const auto sealed = std::ranges::find(row.authorities(), signing.certificate_pem, &AuthorityRow::certificate_pem);
  if (sealed != row.authorities().end() && !sealed->key_sealed().empty()) {
    UCCP_TRY(signing.key_pem, crypto_.open(sealed->key_sealed(), seal_context(signing.certificate_pem)));
  } else if (auto plain = read_file(env_.files, paths_.ca_key, kFileBytesMax)) {
    signing.key_pem = std::move(*plain);
  } else if (const auto stored = read_file(env_.files, paths_.ca_sealed, kFileBytesMax)) {
    UCCP_TRY(signing.key_pem, crypto_.open(*stored, seal_context(signing.certificate_pem)));
  }
  if (signing.key_pem.empty() ||
      runtime::check_identity(signing, signing.certificate_pem, env_.clock.wall()).reason() == "KEY_MISMATCH") {
    return fail(Code::kFailedPrecondition, "AUTHORITY_KEY_MISSING", "this node has no key of the authority");
  }
  return signing;
}

void CertificateSide::follow_authority(Step& step) {
  if (!sources_.authority_file.empty()) return;
  const auto row = certificates::kAuthorities.get(hooks_.view(), {}, "");
  if (!row || row->authorities_size() == 0) return;
  std::string ca_pem, sealed;
  for (const AuthorityRow* authority : certificates::trusted_authorities(*row, env_.clock.wall())) {
    if (ca_pem.empty()) sealed = authority->key_sealed();
    ca_pem += authority->certificate_pem();
  }
  step.trust_changed |= row->SerializeAsString() != step.row.SerializeAsString() || ca_pem != step.next.ca_pem;
  step.row = *row;
  if (ca_pem != step.next.ca_pem) {
    step.next.ca_pem = ca_pem;
    step.changed = true;
  }
  if (!step.trust_changed) return;
  auto signing = signing_identity(ca_pem, *row);
  // Files first: after a restart they are what the node trusts before it knows the state.
  const Result<bool> has_key = env_.files.exists(paths_.ca_key);
  Status stored;
  if (has_key && *has_key && signing)
    stored = runtime::replace_authority(env_.files, {ca_pem, signing->key_pem}, paths_);
  else if (!sealed.empty()) stored = write_file_atomically(env_.files, paths_.ca_sealed, sealed);
  if (stored.is_ok()) stored = write_file_atomically(env_.files, paths_.ca_certificate, ca_pem);
  if (!stored.is_ok()) log::error("the authorities cannot be stored", {{"reason", stored.to_string()}});
  std::lock_guard lock(mutex_);
  row_ = *row;
  signing_ = signing ? std::move(*signing) : runtime::PemIdentity();
}

void CertificateSide::renew(Step& step) {
  if (!sources_.authority_file.empty()) return;
  const runtime::PkiRequests names = runtime::pki_requests(sources_.pki);
  const auto& ids = step.row.node_ids();
  const bool asked = ids.empty() || std::ranges::find(ids, sources_.node_name) != ids.end();
  Status renewed;
  if (sources_.certificate_file.empty()) {
    renewed = renew_one(step, step.next.server, names.server, asked, paths_.server_certificate, paths_.server_key,
                        &step.next.server);
  }
  if (renewed.is_ok() && sources_.has_peers) {
    renewed =
        renew_one(step, step.next.node, names.node, asked, paths_.node_certificate, paths_.node_key, &step.next.node);
  }
  if (renewed.is_ok()) {
    renewed_generation_ = step.row.generation();
    renew_clients(step);
    return;
  }
  if (std::exchange(refused_, renewed.message()) == renewed.message()) return;
  failures_.add();
  log::error("a certificate has to be renewed and cannot", {{"reason", renewed.to_string()}});
}

// `asked`: a request to renew the nodes' certificates is about this one.
Status CertificateSide::renew_one(Step& step, const runtime::PemIdentity& now, const runtime::CertificateRequest& names,
                                  bool asked, const std::string& certificate_path, const std::string& key_path,
                                  runtime::PemIdentity* into) {
  const std::vector<std::string> authorities = runtime::split_pem(step.next.ca_pem);
  if (authorities.empty()) return Status::ok();
  const WallTime horizon{env_.clock.wall().us + runtime::renew_before_us(sources_.pki.lifetime_s)};
  bool due = !runtime::check_identity(now, authorities.front(), horizon).is_ok();
  if (const auto info = runtime::inspect_certificate(now.certificate_pem); info && asked) {
    const int64_t wanted_s = step.row.nodes_issued_before_us() / 1'000'000;
    due |= issued_s(*info) < wanted_s || (issued_s(*info) == wanted_s && renewed_generation_ < step.row.generation());
  }
  if (!due) return Status::ok();
  UCCP_TRY(const runtime::PemIdentity signing, signing_identity(step.next.ca_pem, step.row));
  UCCP_TRY(runtime::PemIdentity made, runtime::issue_certificate(signing, names, env_.clock.wall()));
  UCCP_RETURN_IF_ERROR(runtime::store_identity(env_.files, made, certificate_path, key_path));
  issued_.add();
  if (into != nullptr) {
    *into = std::move(made);
    step.changed = true;
  }
  return Status::ok();
}

// The certificates of the admin and of agents that lie beside the authority, for those who use them from there.
void CertificateSide::renew_clients(Step& step) {
  const runtime::PkiRequests names = runtime::pki_requests(sources_.pki);
  const auto one = [&](const runtime::CertificateRequest& request, const std::string& certificate,
                       const std::string& key) {
    auto kept = read_file(env_.files, certificate, kFileBytesMax);
    auto kept_key = read_file(env_.files, key, kFileBytesMax);
    if (!kept || !kept_key) return;
    const Status renewed = renew_one(step, {*kept, *kept_key}, request, false, certificate, key, nullptr);
    if (!renewed.is_ok())
      log::warn("a client's certificate cannot be renewed", {{"path", certificate}, {"reason", renewed.to_string()}});
  };
  one(names.admin, paths_.admin_certificate, paths_.admin_key);
  one(names.agent, paths_.agent_certificate, paths_.agent_key);
}

void CertificateSide::tell_the_cluster() {
  if (reporting_ || !hooks_.report) return;
  internal::v1::ReportCertificatesCommand command;
  command.set_node_id(sources_.node_name);
  const CertificateMaterial now = current();
  const auto add = [&](const std::string& pem, v1::CertificateKind kind) {
    auto one = describe(pem, kind);
    if (!one) return;
    one->set_node_id(sources_.node_name);
    *command.add_certificates() = std::move(*one);
  };
  add(now.server.certificate_pem, v1::CERTIFICATE_KIND_SERVER);
  if (sources_.has_peers) add(now.node.certificate_pem, v1::CERTIFICATE_KIND_NODE);
  command.set_generation(renewed_generation_);
  const auto told = certificates::kNodeCertificates.get(hooks_.view(), {}, command.node_id());
  if (told && told->generation() == command.generation() && told->certificates_size() == command.certificates_size() &&
      std::ranges::equal(told->certificates(), command.certificates(), {}, &v1::Certificate::fingerprint,
                         &v1::Certificate::fingerprint)) {
    return;
  }
  reporting_ = true;
  hooks_.report(std::move(command), [this](const Status&) { env_.work.post([this] { reporting_ = false; }); });
}

// --- what is shown --------------------------------------------------------------------------------------------------

void CertificateSide::show_end(const std::string& name, const std::string& pem) {
  const auto info = runtime::inspect_certificate(pem);
  if (!info) return;
  const int64_t left_us = info->not_after.us - env_.clock.wall().us;
  env_.metrics
      .gauge("uccp_certificate_not_after_seconds", "When the certificate ends, in seconds since 1970",
             {{"certificate", name}})
      .set(static_cast<double>(info->not_after.us) / 1e6);
  env_.metrics.gauge("uccp_certificate_expiry_seconds", "Seconds until the certificate ends", {{"certificate", name}})
      .set(static_cast<double>(left_us) / 1e6);
  const int64_t life_us = info->not_after.us - info->not_before.us;
  if (left_us > std::min(alert_before_s_.load() * 1'000'000, life_us / 4)) return;
  int64_t& alerted = alerted_us_[name];
  const int64_t now_us = env_.clock.boot().us;
  if (alerted != 0 && now_us - alerted < kAlertEveryUs) return;
  alerted = now_us;
  log::write({log::Level::kWarn,
              "a certificate is about to end and was not renewed",
              {{"certificate", name}, {"seconds_left", left_us / 1'000'000}, {"serial", info->serial}},
              {},
              {},
              log::Category::kSecurity});
}

void CertificateSide::show(const CertificateMaterial& material) {
  show_end("server", material.server.certificate_pem);
  show_end("authority", material.ca_pem);
  if (sources_.has_peers) show_end("node", material.node.certificate_pem);
  if (material.trust == nullptr || material.crl_pem.empty()) return;
  env_.metrics.gauge("uccp_crl_entries", "Certificates in the revocation lists")
      .set(static_cast<double>(material.trust->crl_entries()));
  if (const auto next = material.trust->crl_next_update()) {
    env_.metrics.gauge("uccp_crl_next_update_seconds", "Seconds until the first revocation list is to be replaced")
        .set(static_cast<double>(next->us - env_.clock.wall().us) / 1e6);
  }
}

// --- AuthorityPort --------------------------------------------------------------------------------------------------

Status CertificateSide::is_own() const {
  if (sources_.certificate_file.empty() && sources_.authority_file.empty()) return Status::ok();
  return Status(Code::kFailedPrecondition, "AUTHORITY_OUTSIDE",
                "the certificates come from the files of tls_cert_file or tls_ca_file: replace those files, which are "
                "read "
                "again within seconds")
      .with_help("security.md#certificates-of-your-own");
}

Result<AuthorityRow> CertificateSide::make_authority() {
  const WallTime now = env_.clock.wall();
  UCCP_TRY(const runtime::PemIdentity made,
           runtime::create_ca("UCCP CA " + sources_.pki.cluster_id + " " + std::to_string(now.us / 1'000'000),
                              kAuthorityYears, now));
  AuthorityRow row;
  row.set_certificate_pem(made.certificate_pem);
  row.set_key_sealed(crypto_.seal(made.key_pem, seal_context(made.certificate_pem)));
  return row;
}

std::vector<AuthorityRow> CertificateSide::known() const {
  std::lock_guard lock(mutex_);
  std::vector<AuthorityRow> out;
  for (const std::string& pem : runtime::split_pem(current_.ca_pem)) {
    AuthorityRow row;
    row.set_certificate_pem(pem);
    if (out.empty() && !signing_.key_pem.empty()) row.set_key_sealed(crypto_.seal(signing_.key_pem, seal_context(pem)));
    out.push_back(std::move(row));
  }
  return out;
}

internal::v1::Trust CertificateSide::trust() const {
  std::lock_guard lock(mutex_);
  internal::v1::Trust out;
  out.set_ca_pem(current_.ca_pem);
  out.set_renew_issued_before_us(row_.agents_issued_before_us());
  out.set_can_sign(!signing_.key_pem.empty() && sources_.authority_file.empty());
  out.set_revision(hash64(out.SerializeAsString()) | 1);
  return out;
}

Result<std::string> CertificateSide::sign(const std::string& request_pem, const std::string& like_pem) {
  runtime::PemIdentity signing;
  {
    std::lock_guard lock(mutex_);
    signing = signing_;
  }
  if (signing.key_pem.empty() || !sources_.authority_file.empty()) {
    return fail(Code::kFailedPrecondition, "AUTHORITY_KEY_MISSING", "this node has no key of the authority");
  }
  UCCP_TRY(const runtime::CertificateInfo like, runtime::inspect_certificate(like_pem));
  const runtime::CertificateRequest names{.common_name = like.common_name,
                                          .organizations = like.organizations,
                                          .uris = like.uris,
                                          .seconds = sources_.pki.lifetime_s,
                                          .use = runtime::CertificateUse::kClient};
  UCCP_TRY(std::string made, runtime::sign_request(signing, request_pem, names, env_.clock.wall()));
  issued_.add();
  return made;
}

std::string CertificateSide::revocation_list() const {
  runtime::PemIdentity signing;
  {
    std::lock_guard lock(mutex_);
    signing = signing_;
  }
  if (signing.key_pem.empty() || !hooks_.revoked_serials) return {};
  return runtime::make_revocation_list(signing, hooks_.revoked_serials(), env_.clock.wall(), kRevocationListS)
      .value_or("");
}

Result<v1::Certificate> CertificateSide::describe(const std::string& pem, v1::CertificateKind kind) const {
  UCCP_TRY(const runtime::CertificateInfo info, runtime::inspect_certificate(pem));
  v1::Certificate out;
  out.set_subject(info.common_name);
  out.set_serial(info.serial);
  out.set_fingerprint(info.fingerprint);
  services::set_wall(out.mutable_not_before(), info.not_before);
  services::set_wall(out.mutable_not_after(), info.not_after);
  out.set_kind(kind);
  return out;
}

}  // namespace uccp::server
