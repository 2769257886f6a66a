// The methods about certificates: RotateCertificates, GetCertificates, and the link of agents and nodes.
//
// Thread: callable from any thread. Must outlive every call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "call/handler.h"
#include "machine/ports.h"
#include "services/certificates/certificates_state.h"
#include "uccp/v1/admin.pb.h"

namespace uccp::certificates {

// What needs keys and files. Callable from any thread.
class AuthorityPort {
 public:
  virtual ~AuthorityPort() = default;
  // Errors: failed_precondition AUTHORITY_OUTSIDE when the certificates of this node come from elsewhere.
  virtual Status is_own() const = 0;
  // A new authority, its key sealed.
  virtual Result<internal::v1::AuthorityRow> make_authority() = 0;
  // Those that this node trusts, the one that signs first, with their keys if it has them.
  virtual std::vector<internal::v1::AuthorityRow> known() const = 0;
  virtual internal::v1::Trust trust() const = 0;
  // A certificate for the key in `request_pem` with the names of `like_pem`. Errors: invalid SIGNING_REQUEST_INVALID;
  // failed_precondition AUTHORITY_KEY_MISSING.
  virtual Result<std::string> sign(const std::string& request_pem, const std::string& like_pem) = 0;
  // Revoked certificates as a list of the authority that signs, PEM; empty without its key.
  virtual std::string revocation_list() const = 0;
  // What is shown of a certificate. Errors: corruption PEM_INVALID.
  virtual Result<v1::Certificate> describe(const std::string& pem, v1::CertificateKind kind) const = 0;
};

// Everything must outlive the service.
struct CertificatesEnvironment {
  machine::Proposer& proposer;
  machine::Reader& reader;
  Executor& timers;
  const Clock& clock;
  AuthorityPort& authority;
  std::function<std::vector<std::string>()> members;  // ids of the nodes
  std::function<uint32_t()> feature_level;            // of the cluster
};

class CertificatesService {
 public:
  explicit CertificatesService(CertificatesEnvironment environment);
  void add_handlers(call::HandlerTable& handlers);
  // Those that wait for a change of whom to trust are answered.
  void trust_changed();

 private:
  using CallPtr = call::CallPtr;

  void rotate(const CallPtr& call, const std::string& bytes);
  void await_nodes(const CallPtr& call, const internal::v1::AuthoritiesRow& row, LogIndex index, int64_t until_ms);
  void get(const CallPtr& call);
  v1::Certificates shown(const machine::GroupView& view) const;
  void wait_trust(const CallPtr& call, const internal::v1::WaitTrustRequest& request);
  void sign(const CallPtr& call, const internal::v1::SignRequest& request);
  void report(const CallPtr& call, const internal::v1::ReportCertificatesCommand& command);

  const CertificatesEnvironment env_;
  std::mutex mutex_;  // of what follows
  std::map<const call::Call*, CallPtr> waiting_;
};

}  // namespace uccp::certificates
