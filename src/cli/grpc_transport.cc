#include "cli/grpc_transport.h"

#include "doors/grpc_client/channel.h"

namespace uccp::cli {
namespace {

doors::CallOptions to_channel(const CallOptions& options) {
  doors::CallOptions converted;
  converted.deadline_ms = options.timeout_ms;
  converted.metadata = options.metadata;
  return converted;
}

class GrpcStream final : public ResponseStream {
 public:
  explicit GrpcStream(std::unique_ptr<doors::ClientStream> stream) : stream_(std::move(stream)) {}

  Result<std::optional<std::string>> read() override {
    std::optional<std::string> message = stream_->read();
    if (message) return message;
    Status status = stream_->finish();
    if (!status.is_ok()) return std::unexpected(std::move(status));
    return std::optional<std::string>();
  }

 private:
  std::unique_ptr<doors::ClientStream> stream_;
};

class GrpcTransport final : public Transport {
 public:
  explicit GrpcTransport(const Context& context) : context_(context) {}

  Result<std::string> unary(const std::string& path, const std::string& request, const CallOptions& options) override {
    UCCP_TRY(doors::GrpcChannel * channel, this->channel());
    return channel->unary(path, request, to_channel(options));
  }

  Result<std::unique_ptr<ResponseStream>> open_stream(const std::string& path, const std::string& request,
                                                      const CallOptions& options) override {
    UCCP_TRY(doors::GrpcChannel * channel, this->channel());
    std::unique_ptr<doors::ClientStream> stream = channel->stream(path, to_channel(options));
    stream->write(request);
    stream->half_close();
    return std::make_unique<GrpcStream>(std::move(stream));
  }

  void next_node() override {
    if (context_.targets.size() < 2) return;
    node_ = (node_ + 1) % context_.targets.size();
    channel_.reset();
  }

  size_t node_count() const override { return context_.targets.size(); }

  Result<doors::GrpcChannel*> channel() {
    if (!channel_) {
      doors::ChannelOptions options;
      options.target = context_.targets[node_];
      options.plaintext = context_.plaintext;
      options.ca_pem = context_.ca_pem;
      options.certificate_pem = context_.cert_pem;
      options.key_pem = context_.key_pem;
      options.bearer_token = context_.token;
      UCCP_TRY(channel_, doors::GrpcChannel::connect(std::move(options)));
    }
    return channel_.get();
  }

 private:
  Context context_;
  size_t node_ = 0;
  std::unique_ptr<doors::GrpcChannel> channel_;
};

}  // namespace

Result<std::unique_ptr<Transport>> connect_grpc(const Context& context) {
  auto transport = std::make_unique<GrpcTransport>(context);
  // Wrong options are found here, not after the retries of a call.
  UCCP_RETURN_IF_ERROR(transport->channel());
  return transport;
}

}  // namespace uccp::cli
