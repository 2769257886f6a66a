// Watch/Watch: one stream with many watches, each of which is a call of KeyValue/Watch.
//
// What this adds to those: numbers of watches that are the stream's own, pieces of one revision put together for
// clients that take no fragments, and one answer to a question for progress when every watch of the stream has told its
// own.
#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "doors/etcd/etcd_convert.h"
#include "doors/etcd/etcd_errors.h"
#include "doors/etcd/etcd_rpc.h"
#include "doors/etcd/etcd_services.h"

namespace uccp::doors {
namespace {

// What clients know as the number of no watch: in answers that are for all of them.
constexpr int64_t kNoWatch = -1;
// How often a watch that asked for it hears that nothing happened; etcd's default.
constexpr int64_t kProgressSeconds = 600;
constexpr size_t kWatchesMax = 10'000;

class WatchRpc : public std::enable_shared_from_this<WatchRpc> {
 public:
  WatchRpc(EtcdContextPtr context, const call::CallPtr& call) : context_(std::move(context)), call_(call) {}
  ~WatchRpc() { cancel_all(); }
  WatchRpc(const WatchRpc&) = delete;
  WatchRpc& operator=(const WatchRpc&) = delete;

  void take(etcd::WatchRequest request) {
    switch (request.request_union_case()) {
      case etcd::WatchRequest::kCreateRequest: return create(std::move(*request.mutable_create_request()));
      case etcd::WatchRequest::kCancelRequest: return cancel(request.cancel_request().watch_id());
      case etcd::WatchRequest::kProgressRequest: return probe();
      default: return;  // etcd ignores what it does not know
    }
  }

  void cancel_all() {
    for (const call::CallPtr& inner : inner_calls()) end(inner);
  }
  void drain() {
    for (const call::CallPtr& inner : inner_calls()) inner->deliver_drain();
  }

 private:
  class One;
  struct Entry {
    call::CallPtr inner;
    std::shared_ptr<One> one;
  };

  void create(etcd::WatchCreateRequest request);
  void cancel(int64_t id);
  void probe();
  void told_progress(int64_t id, int64_t revision);
  void forget(int64_t id);
  void send(etcd::WatchResponse answer, int64_t revision);
  void refuse(std::string reason);
  std::vector<call::CallPtr> inner_calls();
  static void end(const call::CallPtr& inner) {
    inner->deliver_cancel();
    inner->finish(Status(Code::kCancelled, "CANCELLED", "the watch was cancelled"));
  }

  const EtcdContextPtr context_;
  const std::weak_ptr<call::Call> call_;
  std::mutex mutex_;
  std::map<int64_t, Entry> watches_;
  int64_t next_id_ = 0;
  // A question for progress: the watches that have not answered it, and the least revision of those that have.
  std::set<int64_t> unprobed_;
  bool probing_ = false;
  int64_t probed_ = 0;
};

// The way back of one watch.
class WatchRpc::One final : public call::Sink {
 public:
  One(std::weak_ptr<WatchRpc> rpc, int64_t id, const etcd::WatchCreateRequest& request)
      : rpc_(std::move(rpc)),
        id_(id),
        takes_fragments_(request.fragment()),
        wants_progress_(request.progress_notify()) {}

  void send(std::string message) override {
    const auto rpc = rpc_.lock();
    v1::WatchResponse item;
    if (rpc == nullptr || !item.ParseFromString(message)) return;
    if (item.created()) {
      number_ = item.watch_id();
      return created(*rpc, item.revision());
    }
    if (item.has_end()) return ended(*rpc, item);
    if (item.events().empty()) return progress(*rpc, item.revision());
    for (const v1::KeyEvent& event : item.events()) *pending_.add_events() = to_etcd(event);
    if (item.fragment() && !takes_fragments_) return;
    pending_.set_watch_id(id_);
    pending_.set_fragment(item.fragment());
    rpc->send(std::exchange(pending_, {}), item.revision());
  }

  void finish(Status status) override {
    const auto rpc = rpc_.lock();
    if (rpc == nullptr || cancelled_) return;
    if (!told_end_ && !status.is_ok()) {
      // The client's library opens the stream again, here or at another member, and goes on where it was.
      if (status.code() == Code::kUnavailable || status.code() == Code::kExhausted) {
        if (const auto call = rpc->call_.lock()) call->finish(std::move(status));
        return;
      }
      etcd::WatchResponse answer;
      answer.set_watch_id(id_);
      answer.set_canceled(true);
      answer.set_created(number_ == 0);
      answer.set_cancel_reason(etcd_error(status).text);
      rpc->send(std::move(answer), 0);
    }
    rpc->forget(id_);
  }

  size_t queued_bytes() const override {
    const auto rpc = rpc_.lock();
    const auto call = rpc == nullptr ? nullptr : rpc->call_.lock();
    return call == nullptr || call->sink == nullptr ? 0 : call->sink->queued_bytes();
  }

  void cancelled_by_client() { cancelled_ = true; }
  int64_t number() const { return number_; }

 private:
  void progress(WatchRpc& rpc, int64_t revision) {
    rpc.told_progress(id_, revision);
    if (!wants_progress_) return;
    etcd::WatchResponse answer;
    answer.set_watch_id(id_);
    rpc.send(std::move(answer), revision);
  }
  void created(WatchRpc& rpc, int64_t revision) {
    etcd::WatchResponse answer;
    answer.set_created(true);
    answer.set_watch_id(id_);
    rpc.send(std::move(answer), revision);
  }
  void ended(WatchRpc& rpc, const v1::WatchResponse& item) {
    told_end_ = true;
    if (item.end().reason() != v1::STREAM_END_REASON_COMPACTED) {
      if (const auto call = rpc.call_.lock()) {
        call->finish(
            Status(Code::kUnavailable, "RECONNECT", "the watch has to be opened again: " + item.end().message()));
      }
      return;
    }
    // Clients know a watch only once it was made.
    if (number_ == 0) created(rpc, item.revision());
    etcd::WatchResponse answer;
    answer.set_watch_id(id_);
    answer.set_canceled(true);
    answer.set_compact_revision(item.compact_revision());
    answer.set_cancel_reason(etcd_error(Status(Code::kFailedPrecondition, "REVISION_COMPACTED", "")).text);
    rpc.send(std::move(answer), item.revision());
  }

  const std::weak_ptr<WatchRpc> rpc_;
  const int64_t id_;
  const bool takes_fragments_;
  const bool wants_progress_;
  std::atomic<int64_t> number_{0};  // by which the service knows it
  std::atomic<bool> cancelled_{false};
  bool told_end_ = false;
  etcd::WatchResponse pending_;
};

void WatchRpc::create(etcd::WatchCreateRequest request) {
  const call::CallPtr outer = call_.lock();
  if (outer == nullptr) return;
  // etcd takes no key as the least one.
  if (request.key().empty()) request.set_key(std::string(1, '\0'));
  const std::string& end = request.range_end();
  const bool empty = !end.empty() && end != std::string(1, '\0') && end <= request.key();
  if (empty) return refuse("mvcc: watcher range is empty");
  int64_t id = request.watch_id();
  std::string refused;
  std::shared_ptr<One> one;
  call::CallPtr inner = inner_call(outer, "uccp.v1.KeyValue/Watch");
  // A watch lasts as long as its stream.
  inner->deadline = std::nullopt;
  {
    std::lock_guard lock(mutex_);
    const bool taken = id != 0 && watches_.contains(id);
    if (taken) refused = "mvcc: duplicate watch ID provided on the WatchStream";
    else if (watches_.size() >= kWatchesMax) refused = "etcdserver: the stream has too many watches; open another one";
    if (refused.empty() && id == 0) {
      while (watches_.contains(next_id_)) ++next_id_;
      id = next_id_++;
    }
    if (refused.empty()) {
      one = std::make_shared<One>(weak_from_this(), id, request);
      inner->sink = one;
      watches_[id] = {inner, one};
    }
  }
  if (one == nullptr) return refuse(std::move(refused));
  v1::WatchRequest watch = from_etcd(request);
  if (request.progress_notify()) watch.mutable_progress_interval()->set_seconds(kProgressSeconds);
  context_->pipeline.dispatch(inner, watch.SerializeAsString(), "uccp.v1.KeyValue/Watch");
}

void WatchRpc::refuse(std::string reason) {
  etcd::WatchResponse answer;
  answer.set_watch_id(kNoWatch);
  answer.set_created(true);
  answer.set_canceled(true);
  answer.set_cancel_reason(std::move(reason));
  send(std::move(answer), 0);
}

void WatchRpc::cancel(int64_t id) {
  Entry entry;
  {
    std::lock_guard lock(mutex_);
    const auto at = watches_.find(id);
    if (at == watches_.end()) return;
    entry = std::move(at->second);
    watches_.erase(at);
  }
  entry.one->cancelled_by_client();
  end(entry.inner);
  told_progress(id, INT64_MAX);
  etcd::WatchResponse answer;
  answer.set_watch_id(id);
  answer.set_canceled(true);
  send(std::move(answer), 0);
}

void WatchRpc::probe() {
  const call::CallPtr outer = call_.lock();
  if (outer == nullptr) return;
  v1::ProbeWatchesRequest request;
  {
    std::lock_guard lock(mutex_);
    unprobed_.clear();
    probed_ = INT64_MAX;
    for (const auto& [id, entry] : watches_) {
      if (entry.one->number() == 0) continue;
      unprobed_.insert(id);
      request.add_watch_ids(entry.one->number());
    }
    probing_ = !unprobed_.empty();
    if (!probing_) return;
  }
  ask_for<v1::ProbeWatchesResponse>(*context_, outer, {"uccp.v1.KeyValue/ProbeWatches"}, request,
                                    [](const v1::ProbeWatchesResponse&) {});
}

void WatchRpc::told_progress(int64_t id, int64_t revision) {
  int64_t reached = 0;
  {
    std::lock_guard lock(mutex_);
    if (!probing_ || unprobed_.erase(id) == 0) return;
    probed_ = std::min(probed_, revision);
    if (!unprobed_.empty()) return;
    probing_ = false;
    reached = probed_;
  }
  if (reached == INT64_MAX) return;
  etcd::WatchResponse answer;
  answer.set_watch_id(kNoWatch);
  send(std::move(answer), reached);
}

void WatchRpc::forget(int64_t id) {
  {
    std::lock_guard lock(mutex_);
    watches_.erase(id);
  }
  told_progress(id, INT64_MAX);
}

void WatchRpc::send(etcd::WatchResponse answer, int64_t revision) {
  const call::CallPtr call = call_.lock();
  if (call == nullptr) return;
  context_->stamp(*answer.mutable_header(), revision);
  call->send(answer.SerializeAsString());
}

std::vector<call::CallPtr> WatchRpc::inner_calls() {
  std::vector<call::CallPtr> inner;
  std::lock_guard lock(mutex_);
  for (const auto& [id, entry] : watches_) inner.push_back(entry.inner);
  return inner;
}

}  // namespace

void add_etcd_watch(ForeignApi& api, const EtcdContextPtr& context) {
  api.handlers["/etcdserverpb.Watch/Watch"] = [context](const call::CallPtr& call) {
    const auto rpc = std::make_shared<WatchRpc>(context, call);
    call->keep(rpc);
    call->on_drain([rpc] { rpc->drain(); });
    // Also at the orderly end: whoever holds the rpc ends its watches.
    call->on_message([rpc, raw = call.get()](std::string bytes) {
      etcd::WatchRequest request;
      if (!request.ParseFromString(bytes)) return raw->finish(unreadable());
      rpc->take(std::move(request));
      raw->on_cancel([rpc] { rpc->cancel_all(); });
    });
    call->on_cancel([rpc] { rpc->cancel_all(); });
    call->on_half_close([rpc, raw = call.get()] {
      rpc->cancel_all();
      raw->finish(Status::ok());
    });
  };
}

}  // namespace uccp::doors
