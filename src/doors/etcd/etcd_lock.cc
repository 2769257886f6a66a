// v3lock and v3election: queues of keys, as etcd's own concurrency library builds them, so that both see each other.
//
// Who wants in writes PREFIX/LEASE with its lease. The one whose key was created first is in; every other waits in the
// queue of its prefix (etcd_queue.h), so that a release wakes one waiter.
#include <atomic>
#include <charconv>

#include "doors/etcd/etcd_convert.h"
#include "doors/etcd/etcd_queue.h"
#include "doors/etcd/etcd_rpc.h"
#include "doors/etcd/etcd_services.h"

namespace uccp::doors {
namespace {

using KeyQueuesPtr = std::shared_ptr<KeyQueues>;

// Of a lease that is granted for a caller that names none; etcd's default of a session.
constexpr int64_t kSessionTtlSeconds = 60;

std::string hex(int64_t number) {
  char text[17];
  const auto [end, error] = std::to_chars(text, text + sizeof text, static_cast<uint64_t>(number), 16);
  return {text, end};
}

v1::RangeRequest first_created(const std::string& prefix) {
  v1::RangeRequest range;
  range.set_key(prefix);
  range.set_range_end(behind_prefix(prefix));
  range.set_order_by(v1::KEY_ORDER_CREATE_REVISION);
  range.set_limit(1);
  return range;
}

// Calls `changed` once, when a watch of KeyValue/Watch sees something or ends; ends it then.
class OneChange final : public call::Sink {
 public:
  explicit OneChange(std::function<void()> changed) : changed_(std::move(changed)) {}
  void send(std::string message) override {
    v1::WatchResponse item;
    if (item.ParseFromString(message) && (item.events_size() > 0 || item.has_end())) fire();
  }
  void finish(Status) override { fire(); }
  size_t queued_bytes() const override { return 0; }

 private:
  void fire() {
    if (!fired_.exchange(true)) changed_();
  }
  std::function<void()> changed_;
  std::atomic<bool> fired_{false};
};

// Watches until the first event, and ends with `call`.
void on_change(const EtcdContextPtr& context, const call::CallPtr& call, const v1::WatchRequest& request,
               std::function<void()> changed) {
  const call::CallPtr watch = inner_call(call, "uccp.v1.KeyValue/Watch");
  watch->deadline = std::nullopt;
  watch->sink = std::make_shared<OneChange>([call, changed = std::move(changed), weak = std::weak_ptr(watch)] {
    if (const auto open = weak.lock(); open && !open->finished()) end_watch(open);
    if (!call->finished()) changed();
  });
  call->on_cancel([weak = std::weak_ptr(watch)] {
    if (const auto open = weak.lock()) end_watch(open);
  });
  context->pipeline.dispatch(watch, request.SerializeAsString(), "uccp.v1.KeyValue/Watch");
}

// One that queues up below a prefix, until it is in.
class Contender : public std::enable_shared_from_this<Contender> {
 public:
  struct Place {
    std::string key;
    int64_t created = 0;  // revision
    int64_t lease = 0;
    int64_t revision = 0;  // of the store when it was in
  };
  using In = std::function<void(const Place&)>;

  Contender(EtcdContextPtr context, KeyQueuesPtr queues, call::CallPtr call, std::string prefix, std::string value,
            In in)
      : context_(std::move(context)),
        queues_(std::move(queues)),
        call_(std::move(call)),
        prefix_(std::move(prefix)),
        value_(std::move(value)),
        in_(std::move(in)) {}

  void run(int64_t lease) {
    if (lease != 0) return enter(lease);
    v1::GrantLeaseRequest grant;
    grant.mutable_ttl()->set_seconds(kSessionTtlSeconds);
    ask_for<v1::KeyLease>(*context_, call_, {"uccp.v1.KeyValue/GrantLease"}, grant,
                          [self = shared_from_this()](const v1::KeyLease& granted) { self->enter(granted.id()); });
  }

 private:
  void enter(int64_t lease) {
    place_.lease = lease;
    place_.key = prefix_ + hex(lease);
    const auto txn = std::make_shared<v1::TxnRequest>();
    v1::KeyCompare& absent = *txn->add_compare();
    absent.set_key(place_.key);
    absent.set_create_revision(0);
    v1::PutRequest& put = *txn->add_success()->mutable_put();
    put.set_key(place_.key);
    put.set_value(value_);
    put.set_lease(lease);
    *txn->add_success()->mutable_range() = first_created(prefix_);
    txn->add_failure()->mutable_range()->set_key(place_.key);
    *txn->add_failure()->mutable_range() = first_created(prefix_);
    const bool held =
        queues_->hold(prefix_, {call_, txn, [self = shared_from_this(), txn](const v1::TxnResponse* answer) {
                                  if (answer != nullptr) self->entered(*answer);
                                  else if (!self->call_->finished()) self->enter_alone(*txn);
                                }});
    if (!held) enter_alone(*txn);
  }

  // Whether the key is there must be known even if the client has gone: it is taken back then.
  void enter_alone(const v1::TxnRequest& txn) {
    ask(*context_, call_, {.method = "uccp.v1.KeyValue/Txn", .outlives = true}, txn.SerializeAsString(),
        [self = shared_from_this()](Result<std::string> bytes) {
          v1::TxnResponse answer;
          if (!bytes) return self->call_->finish(std::move(bytes.error()));
          if (!answer.ParseFromString(*bytes)) return self->call_->finish(unreadable());
          self->entered(answer);
        });
  }

  void entered(const v1::TxnResponse& answer) {
    if (call_->finished()) return leave();
    if (answer.responses_size() < 2) return call_->finish(unreadable());
    place_.created = answer.revision();
    if (answer.succeeded()) return look(answer);
    const auto& own = answer.responses(0).range();
    if (own.pairs().empty()) return call_->finish(unreadable());
    place_.created = own.pairs(0).create_revision();
    if (own.pairs(0).value() != value_) return replace(answer);
    look(answer);
  }

  void look(const v1::TxnResponse& answer) {
    const auto& first = answer.responses(1).range().pairs();
    if (first.empty() || first.Get(0).create_revision() >= place_.created) return enter_now(answer.revision());
    wait();
    call_->on_cancel([self = shared_from_this()] {
      self->queues_->leave(self->waiting_as_);
      self->leave();
    });
  }

  // It queues already, with another value: that of the last call counts.
  void replace(const v1::TxnResponse& answer) {
    v1::PutRequest put;
    put.set_key(place_.key);
    put.set_value(value_);
    put.set_lease(place_.lease);
    ask_for<v1::PutResponse>(*context_, call_, {"uccp.v1.KeyValue/Put"}, put,
                             [self = shared_from_this(), answer](const v1::PutResponse&) { self->look(answer); });
  }

  void wait() {
    waiting_as_ = queues_->wait(call_, prefix_, place_.key, place_.created,
                                [self = shared_from_this()](Result<KeyQueues::Turn> turn, int64_t revision) {
                                  if (!self->call_->finished()) self->told(std::move(turn), revision);
                                });
  }

  void told(Result<KeyQueues::Turn> turn, int64_t revision) {
    if (!turn) return call_->finish(std::move(turn.error()));
    switch (*turn) {
      case KeyQueues::Turn::kFirst: return enter_now(revision);
      case KeyQueues::Turn::kLost: return wait();
      case KeyQueues::Turn::kGone:
        return call_->finish(Status(Code::kFailedPrecondition, "SESSION_EXPIRED", "mutex: session is expired"));
    }
  }

  void enter_now(int64_t revision) {
    place_.revision = revision;
    in_(place_);
  }

  // The place is given up with the call, which the client may end at any time.
  void leave() {
    v1::DeleteRequest gone;
    gone.set_key(place_.key);
    ask(*context_, call_, {.method = "uccp.v1.KeyValue/Delete", .outlives = true}, gone.SerializeAsString(),
        [](Result<std::string>) {});
  }

  const EtcdContextPtr context_;
  const KeyQueuesPtr queues_;
  const call::CallPtr call_;
  const std::string prefix_;
  const std::string value_;
  const In in_;
  std::atomic<uint64_t> waiting_as_ = 0;
  Place place_;
};

template <typename Answer>
void reply(const EtcdContext& context, call::Call& call, Answer answer, int64_t revision) {
  context.stamp(*answer.mutable_header(), revision);
  call.reply(answer.SerializeAsString());
}

// Sends who leads, at first and at each change.
class Observer : public std::enable_shared_from_this<Observer> {
 public:
  Observer(EtcdContextPtr context, call::CallPtr call, std::string prefix)
      : context_(std::move(context)), call_(std::move(call)), prefix_(std::move(prefix)) {}

  void look() {
    ask_for<v1::RangeResponse>(*context_, call_, {"uccp.v1.KeyValue/Range"}, first_created(prefix_),
                               [self = shared_from_this()](const v1::RangeResponse& answer) { self->found(answer); });
  }

 private:
  void found(const v1::RangeResponse& answer) {
    if (!answer.pairs().empty() && answer.pairs(0).mod_revision() != seen_) {
      seen_ = answer.pairs(0).mod_revision();
      etcd::LeaderResponse leader;
      *leader.mutable_kv() = to_etcd(answer.pairs(0));
      context_->stamp(*leader.mutable_header(), answer.revision());
      call_->send(leader.SerializeAsString());
    }
    v1::WatchRequest watch;
    watch.set_key(prefix_);
    watch.set_range_end(behind_prefix(prefix_));
    watch.set_start_revision(answer.revision() + 1);
    on_change(context_, call_, watch, [self = shared_from_this()] { self->look(); });
  }

  const EtcdContextPtr context_;
  const call::CallPtr call_;
  const std::string prefix_;
  int64_t seen_ = 0;
};

// Puts or deletes the key of a leader if it is still that of `leader`.
void as_leader(const EtcdContextPtr& context, const call::CallPtr& call, const etcd::LeaderKey& leader,
               const std::string* value) {
  if (leader.key().empty())
    return call->finish(Status(Code::kInvalid, "LEADER_MISSING", "the request names no leader"));
  v1::TxnRequest txn;
  v1::KeyCompare& same = *txn.add_compare();
  same.set_key(leader.key());
  same.set_create_revision(leader.rev());
  if (value != nullptr) {
    v1::PutRequest& put = *txn.add_success()->mutable_put();
    put.set_key(leader.key());
    put.set_value(*value);
    put.set_lease(leader.lease());
  } else {
    txn.add_success()->mutable_delete_()->set_key(leader.key());
  }
  const bool has_to_lead = value != nullptr;
  ask_for<v1::TxnResponse>(
      *context, call, {"uccp.v1.KeyValue/Txn"}, txn, [context, call, has_to_lead](const v1::TxnResponse& answer) {
        if (has_to_lead && !answer.succeeded()) {
          return call->finish(Status(Code::kFailedPrecondition, "NOT_LEADER_OF_ELECTION", "election: not leader"));
        }
        reply(*context, *call, etcd::HeaderResponse(), answer.revision());
      });
}

void erase(const EtcdContextPtr& context, const call::CallPtr& call, const std::string& key) {
  v1::DeleteRequest gone;
  gone.set_key(key);
  ask_for<v1::DeleteResponse>(*context, call, {"uccp.v1.KeyValue/Delete"}, gone,
                              [context, call](const v1::DeleteResponse& answer) {
                                reply(*context, *call, etcd::HeaderResponse(), answer.revision());
                              });
}

// The end of a turn where others wait: one change deletes the key, takes the next entrant along, and answers who is
// first then. That one is told before this client, whose next request then comes behind what that one does.
class Release : public std::enable_shared_from_this<Release> {
 public:
  Release(EtcdContextPtr context, KeyQueuesPtr queues, call::CallPtr call, std::string key)
      : context_(std::move(context)), queues_(std::move(queues)), call_(std::move(call)), key_(std::move(key)) {}

  void run() {
    v1::TxnRequest txn;
    txn.add_success()->mutable_delete_()->set_key(key_);
    entrant_ = queues_->take(call_, key_);
    if (entrant_) {
      *txn.add_success()->mutable_txn() = *entrant_->entry;
    } else {
      v1::RangeRequest& next = *txn.add_success()->mutable_range();
      next = first_created(std::string(queue_of(key_)));
      next.set_keys_only(true);
    }
    // The entrant has to hear of it, whatever becomes of this client.
    ask(*context_, call_, {.method = "uccp.v1.KeyValue/Txn", .outlives = true}, txn.SerializeAsString(),
        [self = shared_from_this()](Result<std::string> bytes) {
          v1::TxnResponse answer;
          if (!bytes) return self->failed(std::move(bytes.error()));
          if (!answer.ParseFromString(*bytes) || answer.responses_size() < 2) return self->failed(unreadable());
          self->done(answer);
        });
  }

 private:
  void done(const v1::TxnResponse& answer) {
    const v1::TxnResult& second = answer.responses(1);
    const v1::TxnResponse& entered = second.txn();
    if (entrant_ && entered.responses_size() < 2) return failed(unreadable());
    const auto& first = (entrant_ ? entered.responses(1) : second).range().pairs();
    if (!first.empty()) queues_->tell_first(call_, key_, first.Get(0).create_revision(), answer.revision());
    reply(*context_, *call_, etcd::HeaderResponse(), answer.revision());
    if (entrant_) entrant_->go(&entered);
  }

  // To enter twice is to enter once. The release itself is made again only if it is known that nothing has happened.
  void failed(Status why) {
    const bool for_the_entrant =
        entrant_ && (why.code() == Code::kNotFound || why.code() == Code::kExhausted || why.code() == Code::kInvalid);
    if (!for_the_entrant) call_->finish(std::move(why));
    else if (!call_->finished()) erase(context_, call_, key_);
    if (entrant_) entrant_->go(nullptr);
  }

  const EtcdContextPtr context_;
  const KeyQueuesPtr queues_;
  const call::CallPtr call_;
  const std::string key_;
  std::optional<KeyQueues::Entrant> entrant_;
};

void add_locks(ForeignApi& api, const EtcdContextPtr& context, const KeyQueuesPtr& queues) {
  api.handlers["/v3lockpb.Lock/Lock"] =
      unary<etcd::LockRequest>([context, queues](const call::CallPtr& call, const etcd::LockRequest& request) {
        const auto in = [context, call](const Contender::Place& place) {
          etcd::LockResponse answer;
          answer.set_key(place.key);
          reply(*context, *call, std::move(answer), place.revision);
        };
        std::make_shared<Contender>(context, queues, call, request.name() + "/", "", in)->run(request.lease());
      });
  api.handlers["/v3lockpb.Lock/Unlock"] =
      unary<etcd::UnlockRequest>([context, queues](const call::CallPtr& call, const etcd::UnlockRequest& request) {
        if (request.key().empty()) return call->finish(Status(Code::kInvalid, "KEY_MISSING", "a lock has a key"));
        if (!queues->awaited(call, request.key())) return erase(context, call, request.key());
        std::make_shared<Release>(context, queues, call, request.key())->run();
      });
}

void add_elections(ForeignApi& api, const EtcdContextPtr& context, const KeyQueuesPtr& queues) {
  api.handlers["/v3electionpb.Election/Campaign"] =
      unary<etcd::CampaignRequest>([context, queues](const call::CallPtr& call, const etcd::CampaignRequest& request) {
        const auto in = [context, call, name = request.name()](const Contender::Place& place) {
          etcd::CampaignResponse answer;
          etcd::LeaderKey& leader = *answer.mutable_leader();
          leader.set_name(name);
          leader.set_key(place.key);
          leader.set_rev(place.created);
          leader.set_lease(place.lease);
          reply(*context, *call, std::move(answer), place.revision);
        };
        std::make_shared<Contender>(context, queues, call, request.name() + "/", request.value(), in)
            ->run(request.lease());
      });
  api.handlers["/v3electionpb.Election/Proclaim"] =
      unary<etcd::ProclaimRequest>([context](const call::CallPtr& call, const etcd::ProclaimRequest& request) {
        as_leader(context, call, request.leader(), &request.value());
      });
  api.handlers["/v3electionpb.Election/Resign"] =
      unary<etcd::ResignRequest>([context](const call::CallPtr& call, const etcd::ResignRequest& request) {
        as_leader(context, call, request.leader(), nullptr);
      });
  api.handlers["/v3electionpb.Election/Leader"] =
      unary<etcd::LeaderRequest>([context](const call::CallPtr& call, const etcd::LeaderRequest& request) {
        ask_for<v1::RangeResponse>(*context, call, {"uccp.v1.KeyValue/Range"}, first_created(request.name() + "/"),
                                   [context, call](const v1::RangeResponse& found) {
                                     if (found.pairs().empty()) {
                                       return call->finish(Status(Code::kInternal, "NO_LEADER", "election: no leader"));
                                     }
                                     etcd::LeaderResponse answer;
                                     *answer.mutable_kv() = to_etcd(found.pairs(0));
                                     reply(*context, *call, std::move(answer), found.revision());
                                   });
      });
  api.handlers["/v3electionpb.Election/Observe"] =
      unary<etcd::LeaderRequest>([context](const call::CallPtr& call, const etcd::LeaderRequest& request) {
        std::make_shared<Observer>(context, call, request.name() + "/")->look();
      });
}

}  // namespace

void add_etcd_lock(ForeignApi& api, const EtcdContextPtr& context) {
  const auto queues = std::make_shared<KeyQueues>(context);
  add_locks(api, context, queues);
  add_elections(api, context, queues);
}

}  // namespace uccp::doors
