#include "doors/grpc/builtin_call.h"

#include <algorithm>

#include "call/contract.h"
#include "call/wire.h"
#include "doors/grpc/reflection.h"

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

std::string asked_service(const std::string& request) {
  call::WireReader reader(request);
  std::string name;
  for (call::WireField field; reader.next(field);) {
    if (field.number == 1) name = field.bytes;
  }
  return name;
}

void answer_reflection(const call::CallPtr& call) {
  call->on_message([raw = call.get()](std::string request) { raw->send(reflect(request)); });
  call->on_half_close([raw = call.get()] { raw->finish(Status::ok()); });
}

}  // namespace

// Sends the state when it is opened and at each change. It ends when the client cancels or the door stops.
struct BuiltinCalls::Watch {
  void publish(bool ready) {
    const int serving = !known ? kServiceUnknown : ready ? kServing : kNotServing;
    if (std::exchange(sent, serving) == serving) return;
    if (const call::CallPtr open = call.lock()) open->send(health_response(serving));
  }
  std::weak_ptr<call::Call> call;
  bool known = false;
  int sent = 0;
};

BuiltinCalls::BuiltinCalls() {
  handlers_["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] = answer_reflection;
  handlers_["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"] = answer_reflection;
  handlers_["/grpc.health.v1.Health/Check"] = [this](const call::CallPtr& call) { check(call); };
  handlers_["/grpc.health.v1.Health/Watch"] = [this](const call::CallPtr& call) { begin_watch(call); };
}

void BuiltinCalls::set_ready(std::function<bool()> ready) { ready_ = std::move(ready); }

void BuiltinCalls::check(const call::CallPtr& call) {
  call->on_message([this, raw = call.get()](std::string request) {
    if (!knows_service(asked_service(request))) {
      return raw->finish(Status(Code::kNotFound, "SERVICE_UNKNOWN", "this server has no such service"));
    }
    raw->reply(health_response(ready_() ? kServing : kNotServing));
  });
  call->on_half_close([raw = call.get()] {
    raw->finish(Status(Code::kInvalid, "REQUEST_MISSING", "the client sent no request message"));
  });
}

void BuiltinCalls::begin_watch(const call::CallPtr& call) {
  auto watch = std::make_shared<Watch>();
  watch->call = call;
  call->keep(watch);
  call->on_message([this, watch](std::string request) {
    std::lock_guard lock(mutex_);
    if (closed_ || watch->sent != 0) return;
    watch->known = knows_service(asked_service(request));
    watch->publish(ready_());
    watches_.push_back(watch);
  });
  std::unique_lock lock(mutex_);
  if (!closed_) return;
  lock.unlock();
  call->finish(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
}

void BuiltinCalls::publish() {
  std::lock_guard lock(mutex_);
  if (watches_.empty()) return;
  const bool ready = ready_();
  std::erase_if(watches_, [&](const std::weak_ptr<Watch>& each) {
    const auto watch = each.lock();
    if (watch != nullptr) watch->publish(ready);
    return watch == nullptr;
  });
}

void BuiltinCalls::close() {
  std::vector<std::weak_ptr<Watch>> open;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    open.swap(watches_);
  }
  for (const auto& each : open) {
    const auto watch = each.lock();
    if (watch == nullptr) continue;
    if (const call::CallPtr call = watch->call.lock()) {
      call->finish(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
    }
  }
}

}  // namespace uccp::doors
