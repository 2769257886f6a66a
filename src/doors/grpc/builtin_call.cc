#include "doors/grpc/builtin_call.h"

#include <algorithm>

#include "call/contract.h"
#include "call/wire.h"
#include "doors/grpc/reflection.h"
#include "doors/grpc_client/byte_buffer.h"

namespace uccp::doors {
namespace {

// HealthCheckResponse.ServingStatus
enum Serving : int { kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

std::string health_response(int serving) {
  std::string out;
  call::put_uint(out, 1, static_cast<uint64_t>(serving));
  return out;
}

bool knows_service(std::string_view name) {
  const auto services = call::Contract::get().services();
  return name.empty() || name == "grpc.health.v1.Health" || std::ranges::find(services, name) != services.end();
}

std::string asked_service(const grpc::ByteBuffer& request) {
  const std::string bytes = to_string(request);
  call::WireReader reader(bytes);
  std::string name;
  for (call::WireField field; reader.next(field);) {
    if (field.number == 1) name = field.bytes;
  }
  return name;
}

// One answer to each question, in turn: the client waits while an answer is being written.
class ReflectionCall final : public grpc::ServerGenericBidiReactor {
 public:
  ReflectionCall() { StartRead(&read_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    write_ = to_byte_buffer(reflect(to_string(read_)));
    StartWrite(&write_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    StartRead(&read_);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer read_;
  grpc::ByteBuffer write_;
};

class HealthCheck final : public grpc::ServerGenericBidiReactor {
 public:
  explicit HealthCheck(const std::function<bool()>& ready) : ready_(ready) { StartRead(&read_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish({grpc::StatusCode::INVALID_ARGUMENT, "no request message"});
    if (!knows_service(asked_service(read_))) return Finish({grpc::StatusCode::NOT_FOUND, "unknown service"});
    write_ = to_byte_buffer(health_response(ready_() ? kServing : kNotServing));
    StartWriteAndFinish(&write_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  const std::function<bool()>& ready_;
  grpc::ByteBuffer read_;
  grpc::ByteBuffer write_;
};

}  // namespace

// Sends the state when it is opened and at each change. It ends only when the client cancels or the door stops.
class HealthWatch final : public grpc::ServerGenericBidiReactor {
 public:
  HealthWatch(const std::function<bool()>& ready, HealthWatchList& watches) : ready_(ready), watches_(watches) {
    StartRead(&read_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return finish();
    {
      std::lock_guard lock(mutex_);
      known_ = knows_service(asked_service(read_));
    }
    watches_.add(this);
    publish(ready_());
  }
  void publish(bool ready) {
    std::lock_guard lock(mutex_);
    wanted_ = !known_ ? kServiceUnknown : ready ? kServing : kNotServing;
    write_changed();
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) write_changed();
  }
  void OnCancel() override { finish(); }
  void finish() {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override {
    watches_.remove(this);
    delete this;
  }

 private:
  void write_changed() {
    if (writing_ || finished_ || sent_ == wanted_) return;
    writing_ = true;
    sent_ = wanted_;
    write_ = to_byte_buffer(health_response(wanted_));
    StartWrite(&write_);
  }

  const std::function<bool()>& ready_;
  HealthWatchList& watches_;
  std::mutex mutex_;
  grpc::ByteBuffer read_;
  grpc::ByteBuffer write_;
  bool known_ = false;
  bool writing_ = false;
  bool finished_ = false;
  int sent_ = 0;
  int wanted_ = 0;
};

void HealthWatchList::add(HealthWatch* watch) {
  std::lock_guard lock(mutex_);
  watches_.insert(watch);
  if (closed_) watch->finish();
}

void HealthWatchList::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  for (HealthWatch* watch : watches_) watch->finish();
}

void HealthWatchList::remove(HealthWatch* watch) {
  std::lock_guard lock(mutex_);
  watches_.erase(watch);
}

void HealthWatchList::publish(bool ready) {
  std::lock_guard lock(mutex_);
  for (HealthWatch* watch : watches_) watch->publish(ready);
}

grpc::ServerGenericBidiReactor* start_builtin(std::string_view method, const std::function<bool()>& ready,
                                              HealthWatchList& watches) {
  if (method == "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" ||
      method == "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") {
    return new ReflectionCall();
  }
  if (method == "/grpc.health.v1.Health/Check") return new HealthCheck(ready);
  if (method == "/grpc.health.v1.Health/Watch") return new HealthWatch(ready, watches);
  return nullptr;
}

}  // namespace uccp::doors
