#include "sim/cluster/kv_watch_client.h"

#include "call/contract.h"
#include "services/kv/kv_service.h"

namespace uccp::sim {

// What comes of one call; nothing once its owner let go of it.
class KvWatchClient::Stream final : public SimServices::Stream {
 public:
  explicit Stream(KvWatchClient& owner) : owner_(&owner) {}

  void item(std::string message) override {
    if (owner_ != nullptr) owner_->take(message);
  }
  void ended(const Status&) override {
    if (owner_ != nullptr) owner_->generation_ = 0;
  }
  void close() {
    owner_ = nullptr;
    if (const auto open = call.lock()) open->deliver_cancel();
  }

  std::weak_ptr<call::Call> call;

 private:
  KvWatchClient* owner_;
};

KvWatchClient::KvWatchClient(SimCluster& cluster, size_t number)
    : SimClient(cluster, "kv-watch-" + std::to_string(number)) {}

void KvWatchClient::start() { poll(); }

void KvWatchClient::poll() {
  const bool lost = node_ == nullptr || !node_->running() || node_->generation() != generation_;
  if (lost) open(next_revision_, cluster_.any_place(random_));
  else if (!cluster_.healed() && chance(0.01)) open(1 + below(next_revision_), cluster_.any_place(random_));
  after_us(20'000 + below(20'000), [this] { poll(); });
}

void KvWatchClient::move_to(size_t place) { open(next_revision_, place); }

void KvWatchClient::open(int64_t start, size_t place) {
  if (!cluster_.running(place)) return;
  if (stream_) stream_->close();
  node_ = &cluster_.node(place);
  generation_ = node_->generation();
  next_revision_ = start;
  subscription_ = cluster_.checkers().kv.watched(start);
  stream_ = std::make_shared<Stream>(*this);
  v1::WatchRequest request;
  request.set_prefix("k");
  request.set_start_revision(start);
  static const call::Method* const watch = call::Contract::get().find(kv::method_name("Watch"));
  const auto call = node_->services().open(
      {.method = watch, .request = request.SerializeAsString(), .principal = name(), .deadline_ms = 0}, stream_);
  stream_->call = call;
}

void KvWatchClient::take(const std::string& bytes) {
  v1::WatchResponse response;
  if (!response.ParseFromString(bytes)) return cluster_.checkers().violations.add("kv", name() + ": no item");
  for (const auto& event : response.events()) {
    const bool put = event.kind() == v1::KEY_EVENT_KIND_PUT;
    cluster_.checkers().kv.told(subscription_, {event.pair().mod_revision(), event.pair().key(),
                                                put ? std::optional<std::string>(event.pair().value()) : std::nullopt});
    // What came of a revision may be cut by a crash: it is seen whole with the next one.
    next_revision_ = event.pair().mod_revision();
  }
  if (response.compact_revision() > 0) {
    cluster_.checkers().kv.refused(name(), next_revision_, response.compact_revision());
    next_revision_ = response.compact_revision();
  }
  if (response.events().empty() || response.fragment()) return;
  next_revision_ = std::max(next_revision_, response.revision() + 1);
}

}  // namespace uccp::sim
