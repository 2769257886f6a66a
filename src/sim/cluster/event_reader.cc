#include "sim/cluster/event_reader.h"

#include "call/contract.h"
#include "sim/cluster/event_client.h"

namespace uccp::sim {

// What comes of one call; nothing once its owner let go of it.
class EventReader::Stream final : public SimServices::Stream {
 public:
  explicit Stream(EventReader& owner) : owner_(&owner) {}

  void item(std::string message) override {
    if (owner_ != nullptr) owner_->take(message);
  }
  void ended(const Status&) override {
    if (owner_ != nullptr) owner_->generation_ = 0;
  }
  // `heard`: the process that serves it is there to hear of it.
  void close(bool heard) {
    owner_ = nullptr;
    const auto open = call.lock();
    if (heard && open) open->deliver_cancel();
  }

  std::weak_ptr<call::Call> call;

 private:
  EventReader* owner_;
};

EventReader::EventReader(SimCluster& cluster, size_t number)
    : SimClient(cluster, "event-reader-" + std::to_string(number)) {}

void EventReader::start() { poll(); }

void EventReader::poll() {
  const bool lost = node_ == nullptr || !node_->running() || node_->generation() != generation_;
  const size_t place = whole_ ? cluster_.leader(kCoreGroup) : cluster_.any_place(random_);
  if (lost) {
    open(last_, place);
  } else if (!cluster_.healed() && chance(0.02) && !seen_.empty()) {
    open(chance(0.2) ? Seen() : seen_[static_cast<size_t>(below(static_cast<int64_t>(seen_.size())))], place);
  }
  after_us(20'000 + below(20'000), [this] { poll(); });
}

void EventReader::read_all(size_t place) {
  whole_ = true;
  open({}, place);
}

void EventReader::open(const Seen& from, size_t place) {
  if (place >= cluster_.places() || !cluster_.running(place)) return;
  if (stream_) stream_->close(node_->running() && node_->generation() == generation_);
  node_ = &cluster_.node(place);
  generation_ = node_->generation();
  last_ = from;
  checked_ = cluster_.checkers().events.opened(from.positions);
  stream_ = std::make_shared<Stream>(*this);
  v1::SubscribeRequest request;
  request.add_topics("*.events");
  request.set_start(v1::SUBSCRIBE_START_EARLIEST);
  request.set_since(from.cursor);
  static const call::Method* const subscribe = call::Contract::get().find("uccp.v1.EventBus/Subscribe");
  const auto call = node_->services().open(
      {.method = subscribe, .request = request.SerializeAsString(), .principal = name(), .deadline_ms = 0}, stream_);
  stream_->call = call;
}

void EventReader::take(const std::string& bytes) {
  v1::EventDelivery item;
  if (!item.ParseFromString(bytes)) return cluster_.checkers().violations.add("events", name() + ": no item");
  if (item.has_end()) {
    // What was behind the cursor is no longer kept: only the topic of which little is kept says so.
    if (item.end().reason() == v1::STREAM_END_REASON_COMPACTED) last_ = {};
    return;
  }
  if (!item.has_event()) return;
  const v1::Event& event = item.event();
  const EventChecker::Place place{event.topic(), event.partition()};
  cluster_.checkers().events.told(checked_, place, event.offset(), event.text());
  cluster_.checkers().transactions.shown(event.topic(), event.text());
  last_ = {item.cursor(), cluster_.checkers().events.positions(checked_)};
  if (seen_.size() < kSeenMax) seen_.push_back(last_);
  else if (chance(0.1)) seen_[static_cast<size_t>(below(kSeenMax))] = last_;
}

}  // namespace uccp::sim
