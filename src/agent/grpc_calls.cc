#include "agent/grpc_calls.h"

#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

namespace uccp::agent {
namespace {

constexpr size_t kChunkBytes = 256u << 10;
constexpr auto kCallTimeout = std::chrono::minutes(10);

// Header, then the content in pieces; the cluster may answer before the end when it has the content.
class Put final : public grpc::ClientBidiReactor<wire::PutBlobRequest, wire::PutBlobResponse> {
 public:
  Put(const std::shared_ptr<grpc::Channel>& channel, BlobSource source, const wire::AttemptId& attempt,
      ServerLink::Done done)
      : stub_(channel), source_(std::move(source)), done_(std::move(done)) {
    context_.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    if (!source_.path.empty()) {
      fd_ = open(source_.path.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd_ < 0) local_error_ = "cannot open " + source_.path + ": " + std::strerror(errno);
    }
    wire::BlobHeader& header = *request_.mutable_header();
    header.mutable_blob()->set_sha256(source_.sha256);
    header.mutable_blob()->set_size(source_.size);
    *header.mutable_attempt() = attempt;
    stub_.PrepareBidiStreamingCall(&context_, "/uccp.internal.v1.AgentLink/PutBlob", {}, this);
    if (!local_error_.empty()) context_.TryCancel();
    StartRead(&response_);
    StartWrite(&request_);
    StartCall();
  }

  void OnReadDone(bool ok) override { answered_ = ok; }

  void OnWriteDone(bool ok) override {
    if (!ok) return;
    if (offset_ >= source_.size) return StartWritesDone();
    std::string& data = *request_.mutable_data();
    const size_t want = std::min<uint64_t>(kChunkBytes, source_.size - offset_);
    if (fd_ < 0) {
      data = source_.data.substr(offset_, want);
    } else {
      data.resize(want);
      const ssize_t got = pread(fd_, data.data(), want, static_cast<off_t>(offset_));
      if (got != static_cast<ssize_t>(want)) {
        local_error_ = "cannot read " + source_.path + " to its end";
        return context_.TryCancel();
      }
    }
    offset_ += want;
    StartWrite(&request_);
  }

  void OnDone(const grpc::Status& status) override {
    Status result;
    if (!local_error_.empty()) {
      result = Status(Code::kCorruption, "BLOB_UNREADABLE", local_error_);
    } else if (!status.ok()) {
      result = status_from(status);
    } else if (!answered_) {
      result = Status(Code::kInternal, "PUT_UNANSWERED", "the cluster ended PutBlob without an answer");
    }
    if (fd_ >= 0) close(fd_);
    done_(std::move(result));
    delete this;
  }

 private:
  grpc::TemplatedGenericStub<wire::PutBlobRequest, wire::PutBlobResponse> stub_;
  grpc::ClientContext context_;
  BlobSource source_;
  ServerLink::Done done_;
  wire::PutBlobRequest request_;
  wire::PutBlobResponse response_;
  int fd_ = -1;
  uint64_t offset_ = 0;
  bool answered_ = false;
  std::string local_error_;
};

class Get final : public grpc::ClientBidiReactor<wire::GetBlobRequest, wire::BlobChunk> {
 public:
  Get(const std::shared_ptr<grpc::Channel>& channel, const std::string& sha256, const wire::AttemptId& attempt,
      std::unique_ptr<objects::BlobWriter> into, ServerLink::Done done)
      : stub_(channel), sha256_(sha256), into_(std::move(into)), done_(std::move(done)) {
    context_.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    request_.set_sha256(sha256);
    *request_.mutable_attempt() = attempt;
    stub_.PrepareBidiStreamingCall(&context_, "/uccp.internal.v1.AgentLink/GetBlob", {}, this);
    StartRead(&chunk_);
    StartWriteLast(&request_, {});
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (local_.is_ok() && !chunk_.data().empty()) local_ = into_->append(chunk_.data());
    if (!local_.is_ok()) return context_.TryCancel();
    chunk_.Clear();
    StartRead(&chunk_);
  }

  void OnDone(const grpc::Status& status) override {
    Status result = local_;
    if (result.is_ok() && !status.ok()) result = status_from(status);
    if (result.is_ok()) {
      if (auto stored = into_->finish(sha256_); !stored) result = stored.error();
    }
    into_.reset();
    done_(std::move(result));
    delete this;
  }

 private:
  grpc::TemplatedGenericStub<wire::GetBlobRequest, wire::BlobChunk> stub_;
  grpc::ClientContext context_;
  const std::string sha256_;
  std::unique_ptr<objects::BlobWriter> into_;
  ServerLink::Done done_;
  wire::GetBlobRequest request_;
  wire::BlobChunk chunk_;
  Status local_;
};

}  // namespace

Status status_from(const grpc::Status& status) {
  if (status.ok()) return Status(Code::kUnavailable, "STREAM_ENDED", "the cluster ended the stream");
  return Status(code_from_grpc(status.error_code()), "CLUSTER_ANSWERED", status.error_message());
}

void start_put(const std::shared_ptr<grpc::Channel>& channel, BlobSource source, const wire::AttemptId& attempt,
               ServerLink::Done done) {
  new Put(channel, std::move(source), attempt, std::move(done));
}

void start_get(const std::shared_ptr<grpc::Channel>& channel, const std::string& sha256, const wire::AttemptId& attempt,
               std::unique_ptr<objects::BlobWriter> into, ServerLink::Done done) {
  new Get(channel, sha256, attempt, std::move(into), std::move(done));
}

void start_unary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, std::string request,
                 int64_t timeout_ms, std::function<void(Result<std::string>)> done) {
  struct Unary {
    explicit Unary(const std::shared_ptr<grpc::Channel>& to) : stub(to) {}
    grpc::GenericStub stub;
    grpc::ClientContext context;
    grpc::ByteBuffer request, response;
  };
  auto unary = std::make_shared<Unary>(channel);
  unary->context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms));
  const grpc::Slice slice(request);
  unary->request = grpc::ByteBuffer(&slice, 1);
  unary->stub.UnaryCall(&unary->context, "/" + method, {}, &unary->request, &unary->response,
                        [unary, done = std::move(done)](const grpc::Status& status) {
                          if (!status.ok()) return done(fail(status_from(status)));
                          std::vector<grpc::Slice> slices;
                          (void)unary->response.Dump(&slices);
                          std::string bytes;
                          for (const grpc::Slice& piece : slices)
                            bytes.append(reinterpret_cast<const char*>(piece.begin()), piece.size());
                          done(std::move(bytes));
                        });
}

}  // namespace uccp::agent
