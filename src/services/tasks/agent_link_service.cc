#include "services/tasks/agent_link_service.h"

#include "base/bytes.h"
#include "call/command.h"
#include "services/objects/blob_stream.h"

namespace uccp::tasks {
namespace {

// Bytes queued for an agent that does not read; beyond it the stream is ended and the agent connects again.
constexpr size_t kAgentQueueBytesMax = 64u << 20;
constexpr uint64_t kBlobBytesMax = 8ull << 30;

class StreamSession final : public AgentSession {
 public:
  explicit StreamSession(call::CallPtr call) : call_(std::move(call)) {}

  void send(internal::v1::ServerMessage message) override {
    if (call_->sink->queued_bytes() > kAgentQueueBytesMax) {
      return close(Status(Code::kExhausted, "AGENT_TOO_SLOW", "the agent does not read its stream"));
    }
    message.set_cursor(std::to_string(++sent_));
    call_->send(message.SerializeAsString());
  }
  void close(Status status) override { call_->finish(std::move(status)); }
  size_t queued_bytes() const override { return call_->sink->queued_bytes(); }
  bool open() const override { return !call_->finished(); }

 private:
  call::CallPtr call_;
  uint64_t sent_ = 0;
};

// One blob on its way in. Messages come one at a time, from a door's thread; what they hold is written there, so that a
// disk that is slow slows down the agent.
class Upload {
 public:
  Upload(call::CallPtr call, objects::BlobStore& blobs, bool disk_is_full)
      : call_(std::move(call)), blobs_(blobs), disk_is_full_(disk_is_full) {}

  void take(std::string bytes) {
    if (call_->finished()) return;
    internal::v1::PutBlobRequest request;
    if (!request.ParseFromString(bytes)) return end(Status(Code::kInvalid, "WIRE_INVALID", "malformed PutBlobRequest"));
    if (Status status = request.has_header() ? begin(request.header()) : append(request.data()); !status.is_ok()) {
      end(std::move(status));
    }
  }

  void finish() {
    if (call_->finished()) return;
    if (existed_) return reply(header_.blob(), true);
    if (!writer_) return end(Status(Code::kInvalid, "BLOB_HEADER_MISSING", "the first message must be the header"));
    auto info = writer_->finish(header_.blob().sha256());
    if (!info) return end(info.error());
    v1::Blob blob;
    blob.set_sha256(info->sha256);
    blob.set_size(info->size);
    reply(blob, false);
  }

 private:
  Status begin(const internal::v1::BlobHeader& header) {
    if (writer_ || existed_) return Status(Code::kInvalid, "BLOB_HEADER_TWICE", "a stream has one header");
    if (header.blob().size() > kBlobBytesMax) {
      return Status(Code::kInvalid, "BLOB_TOO_LARGE", "a blob has at most " + std::to_string(kBlobBytesMax) + " bytes");
    }
    header_ = header;
    UCCP_TRY(existed_, blobs_.exists(header.blob().sha256()));
    if (!existed_ && disk_is_full_) {
      return Status(Code::kExhausted, "NO_SPACE",
                    "the disk of this node is nearly full: content is not stored; free disk space, the agent keeps it "
                    "and tries again")
          .with_retry_after_ms(5000)
          .with_help("runbooks.md#disk-full");
    }
    if (!existed_) {
      UCCP_TRY(writer_, blobs_.begin_put());
    }
    return Status::ok();
  }

  Status append(const std::string& data) {
    if (existed_) return Status::ok();
    if (!writer_) return Status(Code::kInvalid, "BLOB_HEADER_MISSING", "the first message must be the header");
    received_ += data.size();
    if (received_ > header_.blob().size()) {
      return Status(Code::kInvalid, "BLOB_SIZE_MISMATCH", "more bytes came than the header says");
    }
    return writer_->append(data);
  }

  void reply(const v1::Blob& blob, bool existed) {
    internal::v1::PutBlobResponse response;
    *response.mutable_blob() = blob;
    response.set_existed(existed);
    call_->reply(response.SerializeAsString());
  }
  void end(Status status) {
    writer_.reset();
    call_->finish(std::move(status));
  }

  call::CallPtr call_;
  objects::BlobStore& blobs_;
  const bool disk_is_full_;
  internal::v1::BlobHeader header_;
  std::unique_ptr<objects::BlobWriter> writer_;
  uint64_t received_ = 0;
  bool existed_ = false;
};

}  // namespace

AgentLinkService::AgentLinkService(Executor& loop, Executor& blob_io, WorkRuntime& runtime, objects::BlobStore& blobs,
                                   Questions questions)
    : loop_(loop), blob_io_(blob_io), runtime_(runtime), blobs_(blobs), questions_(std::move(questions)) {}

void AgentLinkService::register_handlers(call::HandlerTable& handlers) {
  handlers.add("uccp.internal.v1.AgentLink/Connect", [this](const call::CallPtr& call, std::string) { connect(call); });
  handlers.add("uccp.internal.v1.AgentLink/PutBlob",
               [this](const call::CallPtr& call, std::string) { put_blob(call); });
  handlers.add_parsed<internal::v1::GetBlobRequest>(
      "uccp.internal.v1.AgentLink/GetBlob",
      [this](const call::CallPtr& call, const internal::v1::GetBlobRequest& request) { get_blob(call, request); });
}

void AgentLinkService::connect(const call::CallPtr& call) {
  auto session = std::make_shared<StreamSession>(call);
  const call::Principal& caller = call->principal;
  session->connection = caller.tenant + "/" + caller.name + "@" + call->credentials.address;
  session->may_multiplex = questions_.may_multiplex && questions_.may_multiplex(caller);
  const auto closed = [this, session] { loop_.post([this, session] { runtime_.closed(session); }); };
  call->on_cancel(closed);
  call->on_half_close([call, closed] {
    closed();
    call->finish(Status::ok());
  });
  call->on_message([this, call, session](std::string bytes) {
    internal::v1::AgentMessage message;
    if (!message.ParseFromString(bytes)) {
      return call->finish(Status(Code::kInvalid, "WIRE_INVALID", "malformed AgentMessage"));
    }
    loop_.post(
        [this, session, message = std::move(message)]() mutable { runtime_.receive(session, std::move(message)); });
  });
}

void AgentLinkService::put_blob(const call::CallPtr& call) {
  auto upload = std::make_shared<Upload>(call, blobs_, questions_.disk_is_full && questions_.disk_is_full());
  call->on_half_close([upload] { upload->finish(); });
  call->on_message([upload](std::string bytes) { upload->take(std::move(bytes)); });
}

void AgentLinkService::get_blob(const call::CallPtr& call, const internal::v1::GetBlobRequest& request) {
  const auto info = blobs_.stat(request.sha256());
  if (!info) return call->finish(info.error());
  uint64_t offset = request.offset();
  if (!request.since().empty()) offset = std::strtoull(request.since().c_str(), nullptr, 10);
  objects::stream_blob(blob_io_, blobs_,
                       {.call = call,
                        .sha256 = request.sha256(),
                        .offset = offset,
                        .size = info->size,
                        .item = [](uint64_t at, std::string data) {
                          internal::v1::BlobChunk chunk;
                          chunk.set_offset(at);
                          chunk.set_cursor(std::to_string(at + data.size()));
                          if (data.empty()) chunk.mutable_end()->set_reason(v1::STREAM_END_REASON_COMPLETED);
                          chunk.set_data(std::move(data));
                          return chunk.SerializeAsString();
                        }});
}

}  // namespace uccp::tasks
