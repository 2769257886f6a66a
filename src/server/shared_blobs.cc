#include "server/shared_blobs.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "uccp/internal/v1/agent.pb.h"
#include "uccp/internal/v1/node.pb.h"

namespace uccp::server {
namespace {

using internal::v1::ForwardRequest;
using internal::v1::ForwardResponse;

constexpr size_t kPieceBytes = 1u << 20;
constexpr size_t kQueueBytesMax = 4u << 20;
constexpr int64_t kCopyMs = 5'000;
constexpr int64_t kFetchMs = 10'000;
constexpr int64_t kQueuePauseMs = 2;

ForwardRequest header_for(std::string_view method, std::string request) {
  ForwardRequest first;
  internal::v1::ForwardHeader& header = *first.mutable_header();
  header.set_method(std::string(method));
  header.set_tenant("system");
  header.set_principal("blobs");
  header.set_namespace_("default");
  header.set_door(2);
  header.set_request(std::move(request));
  return first;
}

// Takes the answer of a handler that runs inside the node.
class AnswerSink final : public call::Sink {
 public:
  using Done = std::move_only_function<void(Status, std::string)>;
  explicit AnswerSink(Done done) : done_(std::move(done)) {}
  void send(std::string message) override { message_ = std::move(message); }
  void finish(Status status) override {
    if (done_) std::exchange(done_, {})(std::move(status), std::move(message_));
  }
  size_t queued_bytes() const override { return 0; }

 private:
  Done done_;
  std::string message_;
};

}  // namespace

std::vector<NodeId> SharedBlobs::others() const {
  std::vector<NodeId> out;
  for (const auto& [node, address] : links_.addresses()) {
    if (node != self_ && !address.empty()) out.push_back(node);
  }
  return out;
}

// --- copying --------------------------------------------------------------------------------------------------------

// One blob on its way to one node. Pieces are read on the disk executor, no faster than they are sent.
class SharedBlobs::Push : public std::enable_shared_from_this<Push> {
 public:
  Push(SharedBlobs& blobs, objects::BlobInfo blob, std::function<void(bool)> done)
      : blobs_(blobs), blob_(std::move(blob)), done_(std::move(done)) {}

  void start(NodeId to) {
    stream_ = blobs_.links_.open(
        to, {.on_message =
                 [self = shared_from_this()](std::string bytes) {
                   ForwardResponse response;
                   if (response.ParseFromString(bytes) && response.body_case() == ForwardResponse::kOutcome) {
                     self->stored_ = response.outcome().empty();
                   }
                 },
             .on_done =
                 [self = shared_from_this()](Status) {
                   self->ended_ = true;
                   self->done_(self->stored_);
                 }});
    if (stream_ == nullptr) return done_(false);
    stream_->send(header_for("uccp.internal.v1.AgentLink/PutBlob", {}).SerializeAsString());
    internal::v1::PutBlobRequest first;
    first.mutable_header()->mutable_blob()->set_sha256(blob_.sha256);
    first.mutable_header()->mutable_blob()->set_size(blob_.size);
    send(first);
    blobs_.io_.post([self = shared_from_this()] { self->step(); });
  }

 private:
  void send(const internal::v1::PutBlobRequest& piece) {
    ForwardRequest request;
    request.set_message(piece.SerializeAsString());
    stream_->send(request.SerializeAsString());
  }

  void step() {
    if (ended_) return;
    if (stream_->queued_bytes() > kQueueBytesMax) {
      blobs_.io_.post_after(kQueuePauseMs, [self = shared_from_this()] { self->step(); });
      return;
    }
    if (offset_ < blob_.size) {
      auto data = blobs_.local_.read(blob_.sha256, offset_, kPieceBytes);
      if (!data) return stream_->cancel();
      offset_ += data->size();
      internal::v1::PutBlobRequest piece;
      piece.set_data(std::move(*data));
      send(piece);
      return blobs_.io_.post([self = shared_from_this()] { self->step(); });
    }
    ForwardRequest end;
    end.set_half_close(true);
    stream_->send(end.SerializeAsString());
    stream_->half_close();
  }

  SharedBlobs& blobs_;
  const objects::BlobInfo blob_;
  const std::function<void(bool)> done_;
  std::shared_ptr<call::ForwardStream> stream_;
  uint64_t offset_ = 0;
  std::atomic<bool> ended_{false};
  bool stored_ = false;
};

void SharedBlobs::copy(const objects::BlobInfo& blob, std::function<void()> done) {
  const std::vector<NodeId> peers = others();
  // With this one, a majority of all.
  const size_t needed = (peers.size() + 1) / 2;
  if (needed == 0) return done();
  struct Progress {
    std::mutex mutex;
    size_t stored = 0, ended = 0;
    std::function<void()> done;
    void end_one(bool was_stored, size_t needed, size_t all) {
      std::function<void()> call;
      {
        std::lock_guard lock(mutex);
        stored += was_stored ? 1 : 0;
        if (all > 0) ++ended;
        if (stored >= needed || ended == all) call = std::exchange(done, {});
      }
      if (call) call();
    }
  };
  auto progress = std::make_shared<Progress>();
  progress->done = std::move(done);
  for (const NodeId node : peers) {
    std::make_shared<Push>(*this, blob, [progress, needed, all = peers.size()](bool stored) {
      progress->end_one(stored, needed, all);
    })->start(node);
  }
  // Better one copy that can be read later than a task that never ends because a node is away.
  io_.post_after(kCopyMs, [progress] { progress->end_one(false, 0, 0); });
}

call::Handler SharedBlobs::copying(call::Handler local) {
  return [this, local = std::move(local)](const call::CallPtr& call, std::string request) {
    auto inner = std::make_shared<call::Call>();
    inner->door = call->door;
    inner->method = call->method;
    inner->call_id = call->call_id;
    inner->traceparent = call->traceparent;
    inner->principal = call->principal;
    inner->name_space = call->name_space;
    inner->started = call->started;
    inner->sink = std::make_shared<AnswerSink>([this, call](Status status, std::string message) {
      if (!status.is_ok()) return call->finish(std::move(status));
      internal::v1::PutBlobResponse response;
      (void)response.ParseFromString(message);
      copy({response.blob().sha256(), response.blob().size()}, [call, message] { call->reply(message); });
    });
    local(inner, std::move(request));
    call->on_cancel([inner] {
      inner->deliver_cancel();
      inner->finish(Status(Code::kCancelled, "CANCELLED", "the client cancelled the call or went away"));
    });
    call->on_half_close([inner] { inner->deliver_half_close(); });
    call->on_message([inner](std::string message) { inner->deliver_message(std::move(message)); });
  };
}

// What services store themselves is copied behind their back.
class SharedBlobs::Writer final : public objects::BlobWriter {
 public:
  Writer(SharedBlobs& blobs, std::unique_ptr<objects::BlobWriter> local) : blobs_(blobs), local_(std::move(local)) {}
  Status append(std::string_view data) override { return local_->append(data); }
  Result<objects::BlobInfo> finish(std::string_view expected) override {
    UCCP_TRY(objects::BlobInfo info, local_->finish(expected));
    blobs_.copy(info, [] {});
    return info;
  }

 private:
  SharedBlobs& blobs_;
  std::unique_ptr<objects::BlobWriter> local_;
};

Result<std::unique_ptr<objects::BlobWriter>> SharedBlobs::begin_put() {
  UCCP_TRY(auto local, local_.begin_put());
  return std::unique_ptr<objects::BlobWriter>(std::make_unique<Writer>(*this, std::move(local)));
}

// --- fetching -------------------------------------------------------------------------------------------------------

// One blob on its way here from one node.
class SharedBlobs::Pull : public std::enable_shared_from_this<Pull> {
 public:
  explicit Pull(std::unique_ptr<objects::BlobWriter> writer) : writer_(std::move(writer)) {}

  // True if the whole blob came.
  bool run(PeerLinks& links, NodeId from, const std::string& sha256) {
    stream_ = links.open(from, {.on_message = [self = shared_from_this()](std::string bytes) { self->take(bytes); },
                                .on_done = [self = shared_from_this()](Status) { self->end(); }});
    if (stream_ == nullptr) return false;
    internal::v1::GetBlobRequest request;
    request.set_sha256(sha256);
    stream_->send(header_for("uccp.internal.v1.AgentLink/GetBlob", request.SerializeAsString()).SerializeAsString());
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(kFetchMs), [this] { return ended_; })) {
      stream_->cancel();
      return false;
    }
    return good_ && writer_->finish(sha256).has_value();
  }

 private:
  void take(const std::string& bytes) {
    ForwardResponse response;
    if (!response.ParseFromString(bytes)) return;
    std::lock_guard lock(mutex_);
    if (response.body_case() == ForwardResponse::kOutcome) good_ = failed_ ? false : response.outcome().empty();
    if (response.body_case() != ForwardResponse::kMessage) return;
    internal::v1::BlobChunk chunk;
    if (!chunk.ParseFromString(response.message()) || !writer_->append(chunk.data()).is_ok()) failed_ = true;
    ForwardRequest taken;
    taken.set_taken_bytes(response.message().size());
    stream_->send(taken.SerializeAsString());
  }
  void end() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<objects::BlobWriter> writer_;
  std::shared_ptr<call::ForwardStream> stream_;
  bool good_ = false, failed_ = false, ended_ = false;
};

Status SharedBlobs::fetch(std::string_view sha256) {
  const std::string id(sha256);
  for (const NodeId node : others()) {
    UCCP_TRY(auto writer, local_.begin_put());
    if (std::make_shared<Pull>(std::move(writer))->run(links_, node, id)) return Status::ok();
  }
  return Status(Code::kNotFound, "BLOB_NOT_FOUND", "no node that answers has the blob " + id);
}

call::Handler SharedBlobs::fetching(call::Handler local) {
  return [this, local = std::move(local)](const call::CallPtr& call, std::string request) {
    internal::v1::GetBlobRequest wanted;
    if (!wanted.ParseFromString(request) || local_.exists(wanted.sha256()).value_or(true)) {
      return local(call, std::move(request));
    }
    io_.post([this, local, call, id = wanted.sha256(), request = std::move(request)]() mutable {
      (void)fetch(id);
      local(call, std::move(request));
    });
  };
}

Result<objects::BlobInfo> SharedBlobs::stat(std::string_view sha256) {
  auto info = local_.stat(sha256);
  if (info || info.error().code() != Code::kNotFound) return info;
  UCCP_RETURN_IF_ERROR(fetch(sha256));
  return local_.stat(sha256);
}

Result<std::string> SharedBlobs::read(std::string_view sha256, uint64_t offset, size_t size) {
  auto data = local_.read(sha256, offset, size);
  if (data || data.error().code() != Code::kNotFound) return data;
  UCCP_RETURN_IF_ERROR(fetch(sha256));
  return local_.read(sha256, offset, size);
}

Status SharedBlobs::verify(std::string_view sha256) {
  Status status = local_.verify(sha256);
  if (status.code() != Code::kNotFound) return status;
  UCCP_RETURN_IF_ERROR(fetch(sha256));
  return local_.verify(sha256);
}

}  // namespace uccp::server
