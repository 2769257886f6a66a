// The certificates of a node while it runs: where they come from, when they are replaced, who is told.
//
// A node shows certificates of the cluster's own authority, or of files that somebody else writes. Both are looked at
// once a second: files that changed, an authority that the replicated state has, an end that is near, a revocation
// list. What is new goes to all that hold connections, which go on without a restart. Invariants: what cannot be used
// never replaces what is in use; private keys leave this object only into files of mode 0600 and, sealed, into the
// replicated state. Threads: made and ended on the main thread, looks on the executor given; what AuthorityPort has
// from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/file_system.h"
#include "base/metrics.h"
#include "base/peer_trust.h"
#include "machine/ports.h"
#include "runtime/dev_pki.h"
#include "server/certificate_sources.h"
#include "server/identity_crypto.h"
#include "services/certificates/certificates_service.h"

namespace uccp::server {

// What is in use.
struct CertificateMaterial {
  runtime::PemIdentity server;
  runtime::PemIdentity node;
  std::string ca_pem;  // the one that signs is the first
  std::string crl_pem;
  std::shared_ptr<const PeerTrust> trust;  // ca_pem, crl_pem, and what was revoked by command
};

struct CertificateEnvironment {
  FileSystem& files;
  const Clock& clock;
  MetricsRegistry& metrics;
  Executor& work;
  Random& random;  // the system's
};

// How the side reaches the cluster, once there is one.
struct CertificateHooks {
  std::function<machine::GroupView()> view;  // newest applied state of the core group
  // Tells the leader; any answer ends the attempt.
  std::function<void(internal::v1::ReportCertificatesCommand, std::function<void(Status)>)> report;
  std::function<void()> trust_changed;
  std::function<bool(const std::string& certificate_pem)> revoked;
  std::function<std::vector<std::string>()> revoked_serials;
};

class CertificateSide final : public certificates::AuthorityPort {
 public:
  // Takes what was loaded at the start, with the files of `sources` read. Errors: those of PeerTrust::make().
  static Result<std::unique_ptr<CertificateSide>> make(CertificateSources sources, CertificateMaterial first,
                                                       const std::string& token_key_pem,
                                                       CertificateEnvironment environment);
  ~CertificateSide() override;

  CertificateMaterial current() const;
  // Called with what is new; before start(). An error means that it could not be used.
  void on_replace(std::function<Status(const CertificateMaterial&)> sink) { sinks_.push_back(std::move(sink)); }
  void start(CertificateHooks hooks);
  void stop();
  void set_alert_before(int64_t seconds) { alert_before_s_.store(seconds); }

  Status is_own() const override;
  Result<internal::v1::AuthorityRow> make_authority() override;
  std::vector<internal::v1::AuthorityRow> known() const override;
  internal::v1::Trust trust() const override;
  Result<std::string> sign(const std::string& request_pem, const std::string& like_pem) override;
  std::string revocation_list() const override;
  Result<v1::Certificate> describe(const std::string& pem, v1::CertificateKind kind) const override;

 private:
  struct Revoked;
  struct Step;  // one look: what would be in use after it

  CertificateSide(CertificateSources sources, const std::string& token_key_pem, CertificateEnvironment environment);
  Status use(CertificateMaterial next);
  Result<std::shared_ptr<const PeerTrust>> make_trust(const CertificateMaterial& material) const;
  void look();
  void read_files(Step& step);
  void follow_authority(Step& step);
  void renew(Step& step);
  Status renew_one(Step& step, const runtime::PemIdentity& now, const runtime::CertificateRequest& names, bool asked,
                   const std::string& certificate_path, const std::string& key_path, runtime::PemIdentity* into);
  void renew_clients(Step& step);
  // The authority that signs with its key. Errors: failed_precondition AUTHORITY_KEY_MISSING.
  Result<runtime::PemIdentity> signing_identity(const std::string& ca_pem,
                                                const internal::v1::AuthoritiesRow& row) const;
  void tell_the_cluster();
  void show(const CertificateMaterial& material);
  void show_end(const std::string& name, const std::string& pem);

  const CertificateSources sources_;
  std::atomic<int64_t> alert_before_s_;
  const CertificateEnvironment env_;
  const runtime::DevPkiPaths paths_;
  mutable ClusterCrypto crypto_;
  const std::shared_ptr<Revoked> revoked_;
  std::vector<std::function<Status(const CertificateMaterial&)>> sinks_;
  CertificateHooks hooks_;
  Counter& issued_;
  Counter& failures_;

  mutable std::mutex mutex_;  // of what follows
  CertificateMaterial current_;
  internal::v1::AuthoritiesRow row_;
  runtime::PemIdentity signing_;  // empty key: none
  bool stopped_ = false;

  // On the executor.
  Executor::TimerId timer_ = 0;
  std::string refused_;  // content that could not be used, so that it is said once
  uint64_t renewed_generation_ = 0;
  bool reporting_ = false;
  std::map<std::string, int64_t> alerted_us_;
};

// The form in which a key of an authority is stored where more than its owner may look. `token_key_pem` is the same on
// all nodes. Errors: failed_precondition SEAL_BROKEN.
Result<std::string> seal_authority_key(const runtime::PemIdentity& authority, const std::string& token_key_pem);
Result<std::string> open_authority_key(const std::string& ca_pem, const std::string& sealed,
                                       const std::string& token_key_pem);

}  // namespace uccp::server
