#include "services/objects/blob_stream.h"

namespace uccp::objects {
namespace {

constexpr size_t kPieceBytes = 256u << 10;
constexpr size_t kQueuedBytesMax = 1u << 20;

struct State {
  Executor& io;
  BlobStore& blobs;
  BlobStream stream;
};

void pump(const std::shared_ptr<State>& state) {
  BlobStream& s = state->stream;
  while (!s.call->finished()) {
    if (s.call->sink->queued_bytes() > kQueuedBytesMax) return;  // on_drain goes on
    if (s.offset >= s.size) {
      s.call->send(s.item(s.offset, {}));
      return s.call->finish(Status::ok());
    }
    auto data = state->blobs.read(s.sha256, s.offset, kPieceBytes);
    if (!data) return s.call->finish(data.error());
    if (data->empty()) {
      return s.call->finish(Status(Code::kCorruption, "BLOB_SHORT", "the blob ends before its size"));
    }
    const uint64_t at = s.offset;
    s.offset += data->size();
    s.call->send(s.item(at, std::move(*data)));
  }
}

}  // namespace

void stream_blob(Executor& io, BlobStore& blobs, BlobStream stream) {
  auto state = std::make_shared<State>(io, blobs, std::move(stream));
  // The call holds the state through its callback until it ends.
  state->stream.call->on_drain([weak = std::weak_ptr(state)] {
    if (auto s = weak.lock()) s->io.post([s] { pump(s); });
  });
  state->stream.call->keep(state);
  io.post([state] { pump(state); });
}

}  // namespace uccp::objects
