#include "agent/actor_calls.h"

#include <google/protobuf/util/json_util.h>

#include <charconv>

#include "agent/function_wire.h"
#include "base/bytes.h"

namespace uccp::agent {
namespace {

constexpr size_t kReplyBytes = 512u << 10;

void add_argument(std::string& body, std::string_view name, const v1::Payload& payload) {
  if (!name.empty()) append_field(body, 'k', name);
  if (!payload.content_type().empty()) append_field(body, 'c', payload.content_type());
  if (payload.has_json()) {
    std::string json;
    (void)google::protobuf::util::MessageToJsonString(payload.json(), &json);
    return append_field(body, 'j', json);
  }
  if (payload.has_text()) return append_field(body, 't', payload.text());
  if (payload.has_data()) return append_field(body, 'd', payload.data());
  append_field(body, 'z', {});
}

bool travels(const v1::Payload& payload) { return !payload.has_blob() && !payload.has_object(); }

// Why a call cannot reach the process at all; empty: it can.
std::string refusal(const v1::ActorCall& call) {
  if (call.method().empty() || call.method().front() == '_')
    return "a method has a name that does not begin with _, this is \"" + call.method() + "\"";
  for (const v1::Payload& payload : call.args()) {
    if (!travels(payload)) return "an argument is a blob or an object, which calls of actors cannot have";
  }
  for (const auto& [name, payload] : call.kwargs()) {
    if (!travels(payload)) return "the argument " + name + " is a blob or an object, which calls of actors cannot have";
  }
  return {};
}

v1::ActorResult failed(uint64_t number, std::string message) {
  v1::ActorResult result;
  result.set_number(number);
  result.set_failed(true);
  result.set_message(std::move(message));
  return result;
}

std::string call_id(const std::string& caller, uint64_t number) { return caller + " " + std::to_string(number); }

void add_call(std::string& body, const std::string& caller, const v1::ActorCall& call) {
  append_field(body, 'i', call_id(caller, call.number()));
  append_field(body, 'm', call.method());
  for (const v1::Payload& payload : call.args()) add_argument(body, {}, payload);
  for (const auto& [name, payload] : call.kwargs()) add_argument(body, name, payload);
}

uint64_t number_of(std::string_view text) {
  uint64_t number = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

v1::Payload payload_of(std::string_view content_type, std::string_view content) {
  v1::Payload payload;
  if (content_type == "application/json" &&
      google::protobuf::util::JsonStringToMessage(std::string(content), payload.mutable_json()).ok()) {
    return payload;
  }
  payload.set_content_type(std::string(content_type));
  payload.set_data(std::string(content));
  return payload;
}

}  // namespace

ActorCalls::Caller* ActorCalls::caller_of(uint64_t channel) {
  const auto found = channels_.find(channel);
  return found == channels_.end() ? nullptr : &callers_.at(found->second);
}

ActorCalls::Caller& ActorCalls::attach(uint64_t channel, const v1::ActorRequest& request) {
  Caller& caller = callers_[request.caller()];
  caller.name = request.caller();
  detach(caller);
  caller.channel = channel;
  caller.owner = request.owner();
  channels_[channel] = caller.name;
  if (caller.owner) owners_connected_ += 1;
  confirm(caller, request.acknowledged());
  answer_again(caller);
  forget_old_callers();
  return caller;
}

// In pieces, since a message has a limit.
void ActorCalls::answer_again(const Caller& caller) {
  v1::ActorReply again;
  size_t bytes = 0;
  for (const auto& [number, results] : caller.kept) {
    for (const v1::ActorResult& result : results) {
      if (bytes > 0 && bytes + result.ByteSizeLong() > kReplyBytes) {
        answer_(caller.channel, std::exchange(again, {}));
        bytes = 0;
      }
      bytes += result.ByteSizeLong();
      *again.add_results() = result;
    }
  }
  if (again.results_size() > 0) answer_(caller.channel, again);
}

void ActorCalls::detach(Caller& caller) {
  if (caller.channel == 0) return;
  channels_.erase(caller.channel);
  caller.channel = 0;
  caller.left = ++departures_;
  if (caller.owner) owners_connected_ -= 1;
}

void ActorCalls::forget_old_callers() {
  while (callers_.size() > limits_.callers_max) {
    auto oldest = callers_.end();
    for (auto one = callers_.begin(); one != callers_.end(); ++one) {
      if (one->second.channel == 0 && (oldest == callers_.end() || one->second.left < oldest->second.left))
        oldest = one;
    }
    if (oldest == callers_.end()) return;
    confirm(oldest->second, UINT64_MAX);
    callers_.erase(oldest);
  }
}

void ActorCalls::request(uint64_t channel, const v1::ActorRequest& request) {
  Caller* known = caller_of(channel);
  Caller& caller = known != nullptr ? *known : attach(channel, request);
  confirm(caller, request.acknowledged());
  v1::ActorReply refused;
  for (const v1::ActorCall& call : request.calls()) {
    if (call.number() <= caller.taken) continue;  // it came before; its result comes, or has come
    caller.taken = call.number();
    const size_t bytes = call.ByteSizeLong();
    std::string why = refusal(call);
    if (waiting_.size() >= limits_.calls_max || waiting_bytes_ + kept_bytes_ + bytes > limits_.bytes_max) {
      why = "the actor has " + std::to_string(waiting_.size()) + " calls with " +
            std::to_string(waiting_bytes_ + kept_bytes_) + " bytes to do or to be fetched, at most " +
            std::to_string(limits_.calls_max) + " with " + std::to_string(limits_.bytes_max) +
            " are kept; call again when some have ended";
    }
    if (!why.empty()) {
      keep(caller, failed(call.number(), std::move(why)), refused);
      continue;
    }
    waiting_bytes_ += bytes;
    waiting_.push_back({.caller = caller.name, .call = call, .bytes = bytes});
  }
  if (refused.results_size() > 0) answer_(channel, refused);
  for (const v1::ActorCredit& one : request.credits()) credit(caller, one);
}

// Values that were taken need not be kept, and their generator may go on.
void ActorCalls::credit(Caller& caller, const v1::ActorCredit& credit) {
  if (const auto kept = caller.kept.find(credit.number()); kept != caller.kept.end()) {
    std::deque<v1::ActorResult>& values = kept->second;
    while (!values.empty() && values.front().more() && values.front().index() < credit.taken()) {
      kept_bytes_ -= values.front().ByteSizeLong();
      values.pop_front();
    }
  }
  append_field(credits_, 'i', call_id(caller.name, credit.number()));
  append_field(credits_, 'w', std::to_string(credit.taken()));
}

void ActorCalls::close(uint64_t channel) {
  if (Caller* caller = caller_of(channel)) detach(*caller);
}

void ActorCalls::close_all() {
  for (auto& [name, caller] : callers_) detach(caller);
}

std::optional<std::string> ActorCalls::next_packet() {
  if (waiting_.empty() || ahead_ >= kPacketsAhead) return std::nullopt;
  std::string body;
  while (!waiting_.empty() && (body.empty() || body.size() + waiting_.front().bytes < kActorPacketBytes)) {
    const Waiting& next = waiting_.front();
    add_call(body, next.caller, next.call);
    waiting_bytes_ -= next.bytes;
    waiting_.pop_front();
  }
  ahead_ += 1;
  return body;
}

// Each result is the fields i, q, x, m, c and d, in this order; d ends it. A t stands for a packet that was taken.
void ActorCalls::results(std::string_view body) {
  std::map<std::string, v1::ActorReply, std::less<>> replies;
  v1::ActorResult result;
  std::string_view caller_name, content_type;
  ByteReader in(body);
  while (in.ok() && in.remaining() > 0) {
    const char tag = static_cast<char>(in.u8());
    const std::string_view content = in.raw(in.u32());
    if (!in.ok()) break;
    if (tag == 't') {
      ahead_ -= ahead_ > 0 ? 1 : 0;
    } else if (tag == 'i') {
      const size_t space = content.rfind(' ');
      caller_name = content.substr(0, space);
      result = {};
      result.set_number(space == std::string_view::npos ? 0 : number_of(content.substr(space + 1)));
      content_type = {};
    } else if (tag == 'q' && !content.empty()) {
      result.set_failed(content[0] == 1);
      result.set_more(content[0] == 2);
    } else if (tag == 'x') {
      result.set_index(number_of(content));
    } else if (tag == 'm') {
      result.set_message(std::string(content));
    } else if (tag == 'c') {
      content_type = content;
    } else if (tag == 'd') {
      *result.mutable_value() = payload_of(content_type, content);
      const auto caller = callers_.find(std::string(caller_name));
      if (caller != callers_.end()) keep(caller->second, std::move(result), replies[caller->first]);
      result = {};
    }
  }
  for (const auto& [name, reply] : replies) {
    const Caller& caller = callers_.at(name);
    if (caller.channel != 0) answer_(caller.channel, reply);
  }
}

void ActorCalls::keep(Caller& caller, v1::ActorResult result, v1::ActorReply& reply) {
  *reply.add_results() = result;
  kept_bytes_ += result.ByteSizeLong();
  const uint64_t number = result.number();
  caller.kept[number].push_back(std::move(result));
}

void ActorCalls::confirm(Caller& caller, uint64_t up_to) {
  while (!caller.kept.empty() && caller.kept.begin()->first <= up_to) {
    for (const v1::ActorResult& result : caller.kept.begin()->second) kept_bytes_ -= result.ByteSizeLong();
    caller.kept.erase(caller.kept.begin());
  }
}

}  // namespace uccp::agent
