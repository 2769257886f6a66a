#include "bench/event_stream.h"

#include "bench/grpc_calls.h"

namespace uccp::bench {
namespace {

class Reader final : public GrpcCaller {
 public:
  explicit Reader(const std::function<bool(std::string_view)>& take) : take_(take) {}

  void on_message(GrpcCall&, std::string_view message) override { over_ = over_ || !take_(message); }
  void on_ended(GrpcCall& call, SteadyTime) override {
    over_ = true;
    if (call.status != kGrpcOk) status_ = Status(Code::kUnavailable, "BENCH_FAILED", call.message);
  }
  bool over() const { return over_; }
  const Status& status() const { return status_; }

 private:
  const std::function<bool(std::string_view)>& take_;
  bool over_ = false;
  Status status_;
};

}  // namespace

Status read_stream(const std::string& target, const TlsIdentity& tls, const std::string& method,
                   const std::string& request, const std::function<bool(std::string_view message)>& take) {
  const CallHeaders headers(method);
  Reader reader(take);
  UCCP_TRY(const auto calls, GrpcCalls::connect({target}, tls, 1));
  calls->listen(0, headers, request, reader);
  while (!reader.over()) calls->turn(SteadyTime::clock::now() + std::chrono::milliseconds(10));
  return reader.status();
}

}  // namespace uccp::bench
