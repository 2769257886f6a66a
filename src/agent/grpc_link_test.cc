// The real link against a small cluster in this process, over mutual TLS.
#include "agent/grpc_link.h"
#include "doors/grpc_client/process.h"

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "agent/reactor.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "runtime/pki.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"

namespace uccp::agent {
namespace {

template <typename Message>
Message parse(grpc::ByteBuffer& buffer) {
  Message message;
  EXPECT_TRUE(grpc::SerializationTraits<Message>::Deserialize(&buffer, &message).ok());
  return message;
}
template <typename Message>
grpc::ByteBuffer serialize(const Message& message) {
  grpc::ByteBuffer buffer;
  bool own = false;
  EXPECT_TRUE(grpc::SerializationTraits<Message>::Serialize(message, &buffer, &own).ok());
  return buffer;
}

// Welcomes every Hello, acknowledges every heartbeat, keeps blobs.
class FakeCluster final : public grpc::CallbackGenericService {
 public:
  explicit FakeCluster(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeCluster() override { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    return new Call(*this, context->method());
  }

  int port = 0;
  std::atomic<int> hellos{0};
  std::atomic<int> heartbeats{0};
  std::mutex mutex;
  std::map<std::string, std::string> blobs;

 private:
  class Call final : public grpc::ServerGenericBidiReactor {
   public:
    Call(FakeCluster& cluster, std::string method) : cluster_(cluster), method_(std::move(method)) { StartRead(&in_); }
    void OnReadDone(bool ok) override {
      if (!ok) return finish_input();
      if (method_.ends_with("/Connect")) return connect(parse<wire::AgentMessage>(in_));
      if (method_.ends_with("/PutBlob")) {
        const auto request = parse<wire::PutBlobRequest>(in_);
        if (request.has_header()) id_ = request.header().blob().sha256();
        content_ += request.data();
        return StartRead(&in_);
      }
      id_ = parse<wire::GetBlobRequest>(in_).sha256();
      std::lock_guard lock(cluster_.mutex);
      if (!cluster_.blobs.contains(id_)) return Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such blob"));
      wire::BlobChunk chunk;
      chunk.set_data(cluster_.blobs[id_]);
      out_ = serialize(chunk);
      StartWriteAndFinish(&out_, {}, grpc::Status::OK);
    }
    void OnWriteDone(bool ok) override {
      if (ok && method_.ends_with("/Connect")) StartRead(&in_);
    }
    void OnDone() override { delete this; }

   private:
    void connect(const wire::AgentMessage& message) {
      wire::ServerMessage answer;
      if (message.has_hello()) {
        cluster_.hellos += 1;
        answer.mutable_welcome()->set_worker_id("worker_1");
      } else if (message.has_heartbeat()) {
        cluster_.heartbeats += 1;
        answer.mutable_heartbeat_ack()->set_sequence(message.heartbeat().sequence());
      } else {
        return StartRead(&in_);
      }
      out_ = serialize(answer);
      StartWrite(&out_);
    }
    void finish_input() {
      if (!method_.ends_with("/PutBlob")) return Finish(grpc::Status::OK);
      {
        std::lock_guard lock(cluster_.mutex);
        cluster_.blobs[id_] = content_;
      }
      wire::PutBlobResponse response;
      response.mutable_blob()->set_sha256(id_);
      out_ = serialize(response);
      if (to_hex(sha256(content_)) != id_) return Finish(grpc::Status(grpc::StatusCode::DATA_LOSS, "digest"));
      StartWriteAndFinish(&out_, {}, grpc::Status::OK);
    }
    FakeCluster& cluster_;
    const std::string method_;
    grpc::ByteBuffer in_, out_;
    std::string id_, content_;
  };
  std::unique_ptr<grpc::Server> server_;
};

class Observer final : public LinkObserver {
 public:
  explicit Observer(GrpcLink*& link) : link_(link) {}
  void link_up() override {
    wire::AgentMessage message;
    message.mutable_hello()->set_incarnation("one");
    link_->send(std::move(message));
    ups += 1;
  }
  void link_down(const Status&) override { downs += 1; }
  void received(wire::ServerMessage message) override {
    std::lock_guard lock(mutex_);
    if (message.has_welcome()) welcomes += 1;
    if (message.has_heartbeat_ack()) last_ack = message.heartbeat_ack().sequence();
    changed_.notify_all();
  }
  void writable() override {}

  template <typename Predicate>
  bool wait(Predicate predicate) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), predicate);
  }
  std::atomic<int> ups{0}, downs{0}, welcomes{0};
  std::atomic<uint64_t> last_ack{0};

 private:
  GrpcLink*& link_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

class GrpcLinkTest : public testing::Test {
 protected:
  // As in the agent's main: gRPC must not be shut down by whoever drops the last channel on one of its own threads.
  static void SetUpTestSuite() { doors::hold_grpc_threads(); }

  GrpcLinkTest() : loop_(clock_), random_(1), observer_(link_pointer_) {
    std::string name = "/tmp/uccp_link_XXXXXX";
    directory_ = mkdtemp(name.data());
    const WallTime now = clock_.wall();
    const auto ca = runtime::create_ca("test", 1, now);
    const auto server = runtime::issue_certificate(
        *ca, {.common_name = "server", .ip_addresses = {"127.0.0.1"}, .use = runtime::CertificateUse::kServer}, now);
    const auto client = runtime::issue_certificate(*ca, {.common_name = "agent", .organizations = {"agent"}}, now);
    write("ca.crt", ca->certificate_pem);
    write("agent.crt", client->certificate_pem);
    write("agent.key", client->key_pem);
    grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = ca->certificate_pem;
    options.pem_key_cert_pairs.push_back({server->key_pem, server->certificate_pem});
    credentials_ = grpc::SslServerCredentials(options);
    loop_.start();
    start_cluster();
    link_ = std::make_unique<GrpcLink>(
        loop_, random_,
        GrpcLinkOptions{.find_server = [this] { return find_server({.context_file = directory_ + "/dev.json"}); },
                        .backoff_ms_min = 10,
                        .backoff_ms_max = 50});
    link_pointer_ = link_.get();
    loop_.post([this] { link_->start(observer_); });
  }
  ~GrpcLinkTest() override {
    std::atomic<bool> stopped{false};
    loop_.post([&] {
      link_->stop();
      stopped = true;
      stopped.notify_all();
    });
    stopped.wait(false);
    cluster_.reset();
    loop_.stop();
    link_.reset();
    std::filesystem::remove_all(directory_);
  }
  void write(const std::string& name, const std::string& text) { std::ofstream(directory_ + "/" + name) << text; }
  void start_cluster() {
    cluster_ = std::make_unique<FakeCluster>(credentials_);
    write("dev.json",
          "{\"grpc\":\"127.0.0.1:" + std::to_string(cluster_->port) + "\",\"ca\":\"ca.crt\",\"cert\":\"x\"}");
  }
  Status put(BlobSource source) {
    return call([&](ServerLink::Done done) { link_->put_blob(std::move(source), {}, std::move(done)); });
  }
  template <typename Start>
  Status call(Start start) {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Status> result;
    loop_.post([&] {
      start([&](Status status) {
        std::lock_guard lock(mutex);
        result = std::move(status);
        changed.notify_all();
      });
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return result.has_value(); });
    return *result;
  }

  runtime::RealClock clock_;
  Reactor loop_;
  SeededRandom random_;
  GrpcLink* link_pointer_ = nullptr;
  Observer observer_;
  std::string directory_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<FakeCluster> cluster_;
  std::unique_ptr<GrpcLink> link_;
};

TEST_F(GrpcLinkTest, HelloIsWelcomedAndMessagesKeepTheirOrder) {
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 1; }));
  loop_.post([&] {
    for (uint64_t i = 1; i <= 5000; ++i) {
      wire::AgentMessage message;
      message.mutable_heartbeat()->set_sequence(i);
      link_->send(std::move(message));
    }
  });
  ASSERT_TRUE(observer_.wait([&] { return observer_.last_ack == 5000; }));
  EXPECT_EQ(cluster_->heartbeats, 5000);
}

TEST_F(GrpcLinkTest, ARestartedServerOnAnotherPortIsFoundAgain) {
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 1; }));
  cluster_.reset();
  start_cluster();
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 2; }));
  EXPECT_GE(observer_.downs, 1);
}

TEST_F(GrpcLinkTest, ReconnectGivesTheStreamUpAndComesBack) {
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 1; }));
  loop_.post([&] { link_->reconnect("test"); });
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 2; }));
  EXPECT_EQ(cluster_->hellos, 2);
}

TEST_F(GrpcLinkTest, BlobsGoUpFromMemoryAndFilesAndComeBack) {
  ASSERT_TRUE(observer_.wait([&] { return observer_.welcomes == 1; }));
  std::string large(3'000'000, 'a');
  for (size_t i = 0; i < large.size(); i += 1000) large[i] = static_cast<char>(i);
  write("large", large);
  const std::string id = to_hex(sha256(large));
  EXPECT_TRUE(put({.sha256 = id, .size = large.size(), .path = directory_ + "/large"}).is_ok());
  EXPECT_EQ(cluster_->blobs[id], large);
  const std::string small = "small";
  EXPECT_TRUE(put({.sha256 = to_hex(sha256(small)), .size = 5, .data = small}).is_ok());
  EXPECT_EQ(put({.sha256 = id, .size = 5, .path = directory_ + "/gone"}).reason(), "BLOB_UNREADABLE");
  EXPECT_EQ(put({.sha256 = id, .size = 5, .data = small}).code(), Code::kCorruption);

  runtime::PosixFileSystem files;
  auto store = objects::DirectoryBlobStore::open(files, directory_ + "/blobs");
  ASSERT_TRUE(store);
  const auto get = [&](const std::string& blob) {
    return call(
        [&](ServerLink::Done done) { link_->get_blob(blob, {}, std::move(*(*store)->begin_put()), std::move(done)); });
  };
  EXPECT_TRUE(get(to_hex(sha256(small))).is_ok());
  EXPECT_EQ(*(*store)->read(to_hex(sha256(small)), 0, 100), small);
  EXPECT_EQ(get(std::string(64, 'a')).code(), Code::kNotFound);
}

TEST(ServerAddress, SaysWhatIsMissing) {
  EXPECT_NE(find_server({}).error().message().find("--server"), std::string::npos);
  EXPECT_NE(find_server({.server = "h:1"}).error().message().find("--cert"), std::string::npos);
  EXPECT_EQ(find_server({.context_file = "/no/such.json"}).error().reason(), "CONTEXT_UNAVAILABLE");
}

}  // namespace
}  // namespace uccp::agent
