// CertificateKeeper: the certificate of the agent, renewed before it ends, and the authorities that it trusts.
//
// An agent begins with the certificate that it was configured with. The cluster tells it which authorities to trust and
// which certificates to renew; it makes a new key, has it signed, and keeps both in its data directory. What it keeps
// counts until the configured certificate changes: an operator's new one wins. Invariants: the private key leaves the
// agent never; a certificate is used only after it was stored. Thread: all on the loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/server_address.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/file_system.h"
#include "uccp/internal/v1/certificates.pb.h"

namespace uccp::agent {

struct CertificateKeeperOptions {
  std::string directory;  // of what is kept
  std::function<Result<ServerAddress>()> configured;
};

class CertificateKeeper {
 public:
  using Done = std::function<void(Result<std::string>)>;
  // Calls a method of the cluster; `done` comes on the loop.
  using Call = std::function<void(const std::string& method, std::string request, int64_t timeout_ms, Done done)>;

  // Everything must outlive the keeper.
  CertificateKeeper(Executor& loop, const Clock& clock, FileSystem& files, CertificateKeeperOptions options);
  ~CertificateKeeper();

  // Where the cluster is, with the keys to use now. Errors: those of `configured`.
  Result<ServerAddress> find_server();
  // `renewed` is called when the next connection would use another certificate.
  void start(Call call, std::function<void()> renewed);
  void stop();

 private:
  struct Kept {
    std::string certificate_pem, key_pem, ca_pem, based_on;
  };

  Result<Kept> in_use();
  void ask();
  void take(const internal::v1::Trust& trust);
  void look();
  void look_again();
  bool is_due(const Kept& kept) const;
  void renew(Kept kept);
  Status store(const Kept& kept);
  std::optional<Kept> load();

  Executor& loop_;
  const Clock& clock_;
  FileSystem& files_;
  const CertificateKeeperOptions options_;
  Call call_;
  std::function<void()> renewed_;
  internal::v1::Trust trust_;
  bool told_ = false;  // trust_ is from the cluster
  bool renewing_ = false;
  Executor::TimerId ask_timer_ = 0;
  Executor::TimerId look_timer_ = 0;
  int64_t next_try_us_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace uccp::agent
