#include "server/peer_links.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"

namespace uccp::server {
namespace {

// A node that does not answer pings is taken for dead after twice this time.
constexpr int64_t kKeepaliveMs = 2'000;
constexpr int64_t kConnectMs = 2'000;

class GrpcForwardStream final : public call::ForwardStream {
 public:
  explicit GrpcForwardStream(std::shared_ptr<doors::AsyncStream> stream) : stream_(std::move(stream)) {}
  void send(std::string message) override { stream_->send(std::move(message)); }
  size_t queued_bytes() const override { return stream_->queued_bytes(); }
  void half_close() override { stream_->half_close(); }
  void cancel() override { stream_->cancel(); }

 private:
  std::shared_ptr<doors::AsyncStream> stream_;
};

}  // namespace

void PeerLinks::set_addresses(std::map<NodeId, std::string> addresses) {
  std::map<std::string, std::shared_ptr<doors::GrpcChannel>> gone;
  std::lock_guard lock(mutex_);
  addresses_ = std::move(addresses);
  std::erase_if(channels_, [&](auto& entry) {
    const bool used = std::ranges::any_of(addresses_, [&](const auto& known) { return known.second == entry.first; });
    if (!used) gone.insert(entry);
    return !used;
  });
}

void PeerLinks::replace_certificates(runtime::PemIdentity identity, std::string ca_pem) {
  std::map<std::string, std::shared_ptr<doors::GrpcChannel>> gone;
  std::lock_guard lock(mutex_);
  if (identity_.certificate_pem == identity.certificate_pem && ca_pem_ == ca_pem) return;
  identity_ = std::move(identity);
  ca_pem_ = std::move(ca_pem);
  gone.swap(channels_);
}

std::map<NodeId, std::string> PeerLinks::addresses() const {
  std::lock_guard lock(mutex_);
  return addresses_;
}

void PeerLinks::set_leads(GroupId group, bool leads) {
  if (group.value < kGroupsMax) leads_[group.value].store(leads);
}
void PeerLinks::set_leader(GroupId group, NodeId leader) {
  if (group.value < kGroupsMax) leaders_[group.value].store(leader.value);
}
bool PeerLinks::leads(GroupId group) const { return group.value < kGroupsMax && leads_[group.value].load(); }

NodeId PeerLinks::leader(GroupId group) const {
  const NodeId leader(group.value < kGroupsMax ? leaders_[group.value].load() : 0);
  return leader == self_ ? NodeId() : leader;
}

std::shared_ptr<doors::GrpcChannel> PeerLinks::channel_at(const std::string& address) {
  std::lock_guard lock(mutex_);
  auto& channel = channels_[address];
  if (channel) return channel;
  doors::ChannelOptions options;
  options.target = address;
  options.ca_pem = ca_pem_;
  options.certificate_pem = identity_.certificate_pem;
  options.key_pem = identity_.key_pem;
  options.keepalive_ms = kKeepaliveMs;
  options.connect_timeout_ms = kConnectMs;
  options.reconnect_ms_min = 50;
  options.reconnect_ms_max = 500;
  options.message_bytes_max = 2 * limits::kMessageBytesMax;
  auto made = doors::GrpcChannel::connect(std::move(options));
  if (!made) {
    log::warn("a node cannot be called", {{"address", address}, {"reason", made.error().message()}});
    return nullptr;
  }
  channel = std::move(*made);
  return channel;
}

std::shared_ptr<doors::GrpcChannel> PeerLinks::channel(NodeId to) {
  std::string address;
  {
    std::lock_guard lock(mutex_);
    const auto known = addresses_.find(to);
    if (known == addresses_.end() || known->second.empty()) return nullptr;
    address = known->second;
  }
  return channel_at(address);
}

std::shared_ptr<call::ForwardStream> PeerLinks::open(NodeId to, call::ForwardEvents events) {
  const auto channel = this->channel(to);
  if (!channel) return nullptr;
  auto stream = channel->stream_async("uccp.internal.v1.NodeLink/Forward", {.on_message = std::move(events.on_message),
                                                                            .on_done = std::move(events.on_done)});
  return std::make_shared<GrpcForwardStream>(std::move(stream));
}

void PeerLinks::call_at(const std::string& address, std::string_view method, std::string request, int64_t timeout_ms,
                        Done done) {
  const auto channel = channel_at(address);
  if (!channel) return done(fail(Code::kUnavailable, "CONNECT_FAILED", "no connection to " + address));
  channel->unary_async(method, std::move(request), std::move(done), {.deadline_ms = timeout_ms});
}

void PeerLinks::call(NodeId to, std::string_view method, std::string request, int64_t timeout_ms, Done done) {
  const auto channel = this->channel(to);
  if (!channel) {
    return done(
        fail(Code::kUnavailable, "ADDRESS_UNKNOWN", "the address of n" + std::to_string(to.value) + " is not known"));
  }
  channel->unary_async(method, std::move(request), std::move(done), {.deadline_ms = timeout_ms});
}

}  // namespace uccp::server
