#include "doors/etcd/etcd_queue.h"

#include <algorithm>
#include <set>

#include "doors/etcd/etcd_convert.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::doors {

namespace {

std::string_view host_of(const call::Call& call) {
  const std::string_view address = call.credentials.address;
  return address.substr(0, address.rfind(':'));
}

}  // namespace

std::string_view queue_of(std::string_view key) { return key.substr(0, key.rfind('/') + 1); }

std::string behind_prefix(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

void end_watch(const call::CallPtr& watch) {
  watch->deliver_cancel();
  watch->finish(Status(Code::kCancelled, "CANCELLED", "the watch has done its work"));
}

// One prefix. Members are under the mutex of the queues; what is to be told is gathered there and told outside of it.
class KeyQueues::Queue : public std::enable_shared_from_this<Queue> {
 public:
  using Calls = std::vector<std::function<void()>>;

  Queue(std::weak_ptr<KeyQueues> queues, EtcdContextPtr context, Name whose, std::string prefix)
      : name(std::move(whose)), queues_(std::move(queues)), context_(std::move(context)), prefix_(std::move(prefix)) {}
  ~Queue() {
    if (watch_) end_watch(watch_);
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Reads the keys with the credentials of `call`, page by page at one revision, then follows them.
  void open(const call::CallPtr& call, std::string from, int64_t revision) {
    v1::RangeRequest range;
    range.set_key(std::move(from));
    range.set_range_end(behind_prefix(prefix_));
    range.set_revision(revision);
    range.set_keys_only(true);
    // Others may wait in it already when this one has gone.
    ask(*context_, call, {.method = "uccp.v1.KeyValue/Range", .outlives = true}, range.SerializeAsString(),
        [self = shared_from_this(), call](Result<std::string> bytes) {
          v1::RangeResponse page;
          if (!bytes) return self->end(std::unexpected(std::move(bytes.error())));
          if (!page.ParseFromString(*bytes))
            return self->end(fail(Code::kInternal, "WIRE_INVALID", "a range of keys cannot be parsed"));
          if (page.more() && !page.next_key().empty()) {
            self->update([&](Calls&) { self->add(page); });
            return self->open(call, page.next_key(), page.revision());
          }
          self->follow(call, page);
        });
  }

  // Under the mutex.
  // ---------------------------------------------------------------------------------------------------

  void wait(uint64_t number, const std::string& key, int64_t created, Told told, Calls& calls) {
    waiters_.emplace(std::pair(created, number), Waiter{key, std::move(told)});
    if (revision_ < created) return;
    if (!keys_.contains({created, key})) tell_all(created, Turn::kGone, revision_, calls);
    else tell_first(calls);
  }
  void leave(uint64_t number) {
    std::erase_if(waiters_, [&](const auto& waiter) { return waiter.first.second == number; });
  }
  // All who wait with the key of that creation; there is more than one if a client asks twice.
  void tell_all(int64_t created, const Result<Turn>& turn, int64_t revision, Calls& calls) {
    const auto from = waiters_.lower_bound({created, 0}), to = waiters_.lower_bound({created + 1, 0});
    for (auto it = from; it != to; ++it) {
      calls.push_back([told = std::move(it->second.told), turn, revision] { told(turn, revision); });
    }
    waiters_.erase(from, to);
  }
  bool idle() const { return waiters_.empty() && held_.empty(); }

  void hold(Entrant entrant, uint64_t tick) { held_.push_back({std::move(entrant), tick}); }
  bool holds() const { return !held_.empty(); }
  bool first_held_from(std::string_view host) const { return holds() && host_of(*held_.front().entrant.call) == host; }
  // The longest held, if it came up to that tick.
  std::optional<Entrant> take(uint64_t tick) {
    if (held_.empty() || held_.front().tick > tick) return std::nullopt;
    Entrant entrant = std::move(held_.front().entrant);
    held_.pop_front();
    return entrant;
  }
  // Those who came up to that tick have to go by themselves.
  void send_off(uint64_t tick, Calls& calls) {
    while (auto entrant = take(tick)) {
      calls.push_back([go = std::move(entrant->go)] { go(nullptr); });
    }
  }

  const Name name;
  bool noted_idle = false;

 private:
  struct Waiter {
    std::string key;
    Told told;
  };
  struct Held {
    Entrant entrant;
    uint64_t tick;  // at which it came
  };
  class Follower;

  template <typename Change>
  void update(const Change& change) {
    const auto queues = queues_.lock();
    if (!queues) return;
    Calls calls;
    {
      std::lock_guard lock(queues->mutex_);
      change(calls);
    }
    for (const auto& call : calls) call();
    queues->note_idle(shared_from_this());
  }

  void follow(const call::CallPtr& call, const v1::RangeResponse& last_page);
  void take(const v1::WatchResponse& item);
  // An error is the waiters'; without one they wait again, in a new queue.
  void end(Result<Turn> why);

  void add(const v1::RangeResponse& page) {
    for (const auto& pair : page.pairs()) add(pair.key(), pair.create_revision());
  }
  void add(const std::string& key, int64_t created) {
    if (created_.try_emplace(key, created).second) keys_.emplace(created, key);
  }
  void tell_first(Calls& calls) {
    if (!keys_.empty()) tell_all(keys_.begin()->first, Turn::kFirst, revision_, calls);
  }

  const std::weak_ptr<KeyQueues> queues_;
  const EtcdContextPtr context_;
  const std::string prefix_;
  call::CallPtr watch_;
  int64_t revision_ = 0;                            // everything up to it is known
  std::set<std::pair<int64_t, std::string>> keys_;  // by creation
  std::map<std::string, int64_t> created_;
  std::map<std::pair<int64_t, uint64_t>, Waiter> waiters_;  // by creation of their key, and number
  std::deque<Held> held_;                                   // in the order in which they came
};

// The way back of the watch.
class KeyQueues::Queue::Follower final : public call::Sink {
 public:
  explicit Follower(std::weak_ptr<Queue> queue) : queue_(std::move(queue)) {}
  void send(std::string message) override {
    const auto queue = queue_.lock();
    v1::WatchResponse item;
    if (queue && item.ParseFromString(message)) queue->take(item);
  }
  void finish(Status status) override {
    const auto queue = queue_.lock();
    if (!queue) return;
    // What passes by itself is tried again; the range that comes first then says whether it has.
    const bool passing = status.is_ok() || status.code() == Code::kUnavailable || status.code() == Code::kCancelled ||
                         status.code() == Code::kFailedPrecondition;
    queue->end(passing ? Result<Turn>(Turn::kLost) : std::unexpected(std::move(status)));
  }
  size_t queued_bytes() const override { return 0; }

 private:
  const std::weak_ptr<Queue> queue_;
};

void KeyQueues::Queue::follow(const call::CallPtr& call, const v1::RangeResponse& last_page) {
  const call::CallPtr watch = inner_call(call, "uccp.v1.KeyValue/Watch");
  watch->deadline = std::nullopt;
  watch->sink = std::make_shared<Follower>(weak_from_this());
  update([&](Calls& calls) {
    add(last_page);
    revision_ = last_page.revision();
    watch_ = watch;
    for (auto it = waiters_.begin(); it != waiters_.end() && it->first.first <= revision_;) {
      const int64_t created = it->first.first;
      const bool there = keys_.contains({created, it->second.key});
      if (!there) tell_all(created, Turn::kGone, revision_, calls);
      it = waiters_.lower_bound({created + 1, 0});
    }
    tell_first(calls);
  });
  v1::WatchRequest request;
  request.set_key(prefix_);
  request.set_range_end(behind_prefix(prefix_));
  request.set_start_revision(last_page.revision() + 1);
  context_->pipeline.dispatch(watch, request.SerializeAsString(), "uccp.v1.KeyValue/Watch");
}

void KeyQueues::Queue::take(const v1::WatchResponse& item) {
  if (item.events().empty()) return;
  update([&](Calls& calls) {
    for (const v1::KeyEvent& event : item.events()) {
      const v1::KeyValuePair& pair = event.pair();
      // Of a revision that is cut the rest follows.
      revision_ = std::max(revision_, pair.mod_revision() - (item.fragment() ? 1 : 0));
      if (event.kind() == v1::KEY_EVENT_KIND_PUT) {
        add(pair.key(), pair.create_revision());
        continue;
      }
      const auto gone = created_.find(pair.key());
      if (gone == created_.end()) continue;
      keys_.erase({gone->second, gone->first});
      tell_all(gone->second, Turn::kGone, revision_, calls);
      created_.erase(gone);
    }
    tell_first(calls);
  });
}

void KeyQueues::Queue::end(Result<Turn> why) {
  const auto queues = queues_.lock();
  if (!queues) return;
  queues->forget(shared_from_this());
  update([&](Calls& calls) {
    watch_ = nullptr;
    while (!waiters_.empty()) tell_all(waiters_.begin()->first.first, why, revision_, calls);
    send_off(UINT64_MAX, calls);
  });
}

KeyQueues::Name KeyQueues::name_of(const call::Call& call, std::string prefix) {
  return {call.credentials.bearer_token, call.credentials.certificate_pem, call.default_namespace, std::move(prefix)};
}

uint64_t KeyQueues::wait(const call::CallPtr& call, const std::string& prefix, const std::string& key, int64_t created,
                         Told told) {
  Queue::Calls calls;
  uint64_t number = 0;
  QueuePtr opened;
  {
    std::lock_guard lock(mutex_);
    number = ++last_number_;
    QueuePtr& queue = queues_[name_of(*call, prefix)];
    if (!queue) {
      queue = std::make_shared<Queue>(weak_from_this(), context_, name_of(*call, prefix), prefix);
      opened = queue;
    }
    places_[number] = queue;
    queue->wait(
        number, key, created,
        [weak = weak_from_this(), number, told = std::move(told)](auto turn, auto revision) {
          if (const auto self = weak.lock()) {
            std::lock_guard lock(self->mutex_);
            // Who has left is not told.
            if (self->places_.erase(number) == 0) return;
          }
          told(std::move(turn), revision);
        },
        calls);
  }
  if (opened) opened->open(call, prefix, 0);
  for (const auto& tell : calls) tell();
  return number;
}

void KeyQueues::leave(uint64_t number) {
  QueuePtr queue;
  {
    std::lock_guard lock(mutex_);
    auto found = places_.extract(number);
    if (found.empty()) return;
    queue = found.mapped().lock();
    if (queue) queue->leave(number);
  }
  if (queue) note_idle(queue);
}

// Under the mutex.
KeyQueues::QueuePtr KeyQueues::find(const call::Call& call, std::string_view prefix) {
  const auto found = queues_.find(name_of(call, std::string(prefix)));
  return found == queues_.end() ? nullptr : found->second;
}

bool KeyQueues::awaited(const call::CallPtr& call, std::string_view key) {
  std::lock_guard lock(mutex_);
  const QueuePtr queue = find(*call, queue_of(key));
  return queue && !queue->idle();
}

void KeyQueues::tell_first(const call::CallPtr& call, std::string_view key, int64_t created, int64_t revision) {
  Queue::Calls calls;
  QueuePtr queue;
  {
    std::lock_guard lock(mutex_);
    queue = find(*call, queue_of(key));
    if (!queue) return;
    queue->tell_all(created, Turn::kFirst, revision, calls);
  }
  for (const auto& tell : calls) tell();
  note_idle(queue);
}

bool KeyQueues::hold(const std::string& prefix, Entrant entrant) {
  std::lock_guard lock(mutex_);
  const QueuePtr queue = find(*entrant.call, prefix);
  if (!queue || queue->idle()) return false;
  queue->hold(std::move(entrant), ticks_);
  holding_.insert(queue);
  tick_later();
  return true;
}

std::optional<KeyQueues::Entrant> KeyQueues::take(const call::CallPtr& call, std::string_view key) {
  std::lock_guard lock(mutex_);
  const QueuePtr queue = find(*call, queue_of(key));
  // Policies may tell hosts apart.
  return queue && queue->first_held_from(host_of(*call)) ? queue->take(UINT64_MAX) : std::nullopt;
}

// Under the mutex.
void KeyQueues::tick_later() {
  if (holding_.empty() || std::exchange(ticking_, true)) return;
  context_->timers.post_after(kEntrantHeldMs, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->tick();
  });
}

void KeyQueues::tick() {
  Queue::Calls calls;
  std::vector<QueuePtr> emptied;
  {
    std::lock_guard lock(mutex_);
    ticking_ = false;
    const uint64_t before = ticks_++;
    for (const QueuePtr& queue : holding_) {
      if (before > 0) queue->send_off(before - 1, calls);
      if (!queue->holds()) emptied.push_back(queue);
    }
    for (const QueuePtr& queue : emptied) holding_.erase(queue);
    tick_later();
  }
  for (const auto& call : calls) call();
  for (const QueuePtr& queue : emptied) note_idle(queue);
}

// Lets go of those that have been idle longest.
void KeyQueues::note_idle(const QueuePtr& queue) {
  std::vector<QueuePtr> ended;
  {
    std::lock_guard lock(mutex_);
    if (!queue->idle() || std::exchange(queue->noted_idle, true)) return;
    idle_.push_back(queue);
    while (idle_.size() > kIdleQueuesMax) {
      const QueuePtr oldest = idle_.front().lock();
      idle_.pop_front();
      if (!oldest) continue;
      oldest->noted_idle = false;
      const auto known = queues_.find(oldest->name);
      if (!oldest->idle() || known == queues_.end() || known->second != oldest) continue;
      ended.push_back(std::move(known->second));
      queues_.erase(known);
    }
  }
}

void KeyQueues::forget(const QueuePtr& queue) {
  std::lock_guard lock(mutex_);
  const auto known = queues_.find(queue->name);
  if (known != queues_.end() && known->second == queue) queues_.erase(known);
}

}  // namespace uccp::doors
