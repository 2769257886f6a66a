#include "agent/certificate_keeper.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "runtime/dev_pki.h"
#include "runtime/pki.h"

namespace uccp::agent {
namespace {

using runtime::PemIdentity;

constexpr int64_t kWaitMs = 60'000;
constexpr int64_t kSignMs = 10'000;
constexpr int64_t kAskAgainMs = 1'000;
constexpr int64_t kLookMs = 1'000;
// After a refusal to sign.
constexpr int64_t kTryAgainUs = 5'000'000;
constexpr uint64_t kFileBytesMax = 1u << 20;

std::string link(const char* rpc) { return std::string("uccp.internal.v1.CertificateLink/") + rpc; }

// The authorities that are the one that signs, or newer: where a certificate of one of these comes from another node
// that has gone over to a new authority a moment earlier than the one that is asked.
std::string signing_or_newer(const std::string& pem) {
  constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  std::string out;
  int64_t first_us = 0;
  for (size_t at = 0, end = pem.find(kEnd); end != std::string::npos; end = pem.find(kEnd, at)) {
    const std::string one = pem.substr(at, end + kEnd.size() - at) + "\n";
    at = end + kEnd.size();
    const auto info = runtime::inspect_certificate(one);
    if (!info) continue;
    if (out.empty()) first_us = info->not_before.us;
    if (info->not_before.us >= first_us) out += one;
  }
  return out;
}

}  // namespace

CertificateKeeper::CertificateKeeper(Executor& loop, const Clock& clock, FileSystem& files,
                                     CertificateKeeperOptions options)
    : loop_(loop), clock_(clock), files_(files), options_(std::move(options)) {}

CertificateKeeper::~CertificateKeeper() {
  stop();
  *alive_ = false;
}

std::optional<CertificateKeeper::Kept> CertificateKeeper::load() {
  Kept kept;
  for (const auto& [name, content] : {std::pair{"agent.crt", &kept.certificate_pem},
                                      {"agent.key", &kept.key_pem},
                                      {"ca.crt", &kept.ca_pem},
                                      {"based-on", &kept.based_on}}) {
    auto read = read_file(files_, options_.directory + "/" + name, kFileBytesMax);
    if (!read) return std::nullopt;
    *content = std::move(*read);
  }
  return kept;
}

// What it is based on comes last: without it the rest does not count, nor does it when it is torn.
Status CertificateKeeper::store(const Kept& kept) {
  UCCP_RETURN_IF_ERROR(files_.make_directories(options_.directory));
  UCCP_RETURN_IF_ERROR(files_.remove(options_.directory + "/based-on"));
  for (const auto& [name, content] : {std::pair{"agent.key", &kept.key_pem},
                                      {"agent.crt", &kept.certificate_pem},
                                      {"ca.crt", &kept.ca_pem},
                                      {"based-on", &kept.based_on}}) {
    UCCP_RETURN_IF_ERROR(write_file_atomically(files_, options_.directory + "/" + name, *content));
  }
  return Status::ok();
}

Result<CertificateKeeper::Kept> CertificateKeeper::in_use() {
  UCCP_TRY(ServerAddress configured, options_.configured());
  const std::string based_on = to_hex(sha256(configured.cert_pem + configured.key_pem));
  if (auto kept = load(); kept && kept->based_on == based_on) {
    const bool good =
        runtime::check_identity({kept->certificate_pem, kept->key_pem}, kept->ca_pem, clock_.wall()).is_ok();
    if (good) return std::move(*kept);
  }
  return Kept{configured.cert_pem, configured.key_pem, configured.ca_pem, based_on};
}

Result<ServerAddress> CertificateKeeper::find_server() {
  UCCP_TRY(ServerAddress address, options_.configured());
  UCCP_TRY(Kept kept, in_use());
  address.ca_pem = std::move(kept.ca_pem);
  address.cert_pem = std::move(kept.certificate_pem);
  address.key_pem = std::move(kept.key_pem);
  return address;
}

void CertificateKeeper::start(Call call, std::function<void()> renewed) {
  call_ = std::move(call);
  renewed_ = std::move(renewed);
  ask();
  look_again();
}

void CertificateKeeper::stop() {
  loop_.cancel(ask_timer_);
  loop_.cancel(look_timer_);
  call_ = nullptr;
}

void CertificateKeeper::ask() {
  if (!call_) return;
  internal::v1::WaitTrustRequest request;
  request.set_revision(told_ ? trust_.revision() : 0);
  call_(link("WaitTrust"), request.SerializeAsString(), kWaitMs,
        [this, alive = alive_](const Result<std::string>& answer) {
          if (!*alive || !call_) return;
          internal::v1::Trust trust;
          if (answer && trust.ParseFromString(*answer)) take(trust);
          const bool at_once = answer.has_value();
          ask_timer_ = loop_.post_after(at_once ? 0 : kAskAgainMs, [this, alive] {
            if (*alive) ask();
          });
        });
}

void CertificateKeeper::take(const internal::v1::Trust& trust) {
  trust_ = trust;
  told_ = true;
  auto kept = in_use();
  if (!kept || trust_.ca_pem().empty() || kept->ca_pem == trust_.ca_pem()) return;
  kept->ca_pem = trust_.ca_pem();
  if (const Status stored = store(*kept); !stored.is_ok()) {
    log::error("the authorities of the cluster cannot be stored", {{"reason", stored.to_string()}});
  }
}

bool CertificateKeeper::is_due(const Kept& kept) const {
  const auto info = runtime::inspect_certificate(kept.certificate_pem);
  if (!info) return true;
  const int64_t life_s = (info->not_after.us - info->not_before.us) / 1'000'000 - runtime::kBackdatedSeconds;
  const WallTime horizon{clock_.wall().us + runtime::renew_before_us(life_s)};
  if (info->not_before.us / 1'000'000 + runtime::kBackdatedSeconds < trust_.renew_issued_before_us() / 1'000'000)
    return true;
  return !runtime::check_identity({kept.certificate_pem, kept.key_pem}, signing_or_newer(trust_.ca_pem()), horizon)
              .is_ok();
}

void CertificateKeeper::look() {
  if (!call_) return;
  if (told_ && trust_.can_sign() && !renewing_ && clock_.boot().us >= next_try_us_) {
    auto kept = in_use();
    if (kept && is_due(*kept)) renew(std::move(*kept));
  }
  look_again();
}

void CertificateKeeper::look_again() {
  look_timer_ = loop_.post_after(kLookMs, [this, alive = alive_] {
    if (*alive) look();
  });
}

void CertificateKeeper::renew(Kept kept) {
  auto made = runtime::make_signing_request();
  if (!made) return;
  internal::v1::SignRequest request;
  request.set_request_pem(made->request_pem);
  renewing_ = true;
  next_try_us_ = clock_.boot().us + kTryAgainUs;
  call_(link("Sign"), request.SerializeAsString(), kSignMs,
        [this, alive = alive_, kept = std::move(kept),
         key = std::move(made->key_pem)](const Result<std::string>& answer) mutable {
          if (!*alive) return;
          renewing_ = false;
          internal::v1::SignResponse signed_now;
          if (!answer || !signed_now.ParseFromString(*answer)) {
            log::warn("the certificate of this agent was not renewed; it is tried again",
                      {{"reason", answer ? "the answer cannot be read" : answer.error().to_string()}});
            return;
          }
          kept.certificate_pem = signed_now.certificate_pem();
          kept.key_pem = std::move(key);
          kept.ca_pem = signed_now.ca_pem();
          if (const Status stored = store(kept); !stored.is_ok()) {
            log::error("the new certificate of this agent cannot be stored", {{"reason", stored.to_string()}});
            return;
          }
          next_try_us_ = 0;
          log::info("the certificate of this agent was renewed");
          if (renewed_) renewed_();
        });
}

}  // namespace uccp::agent
