#include "services/tasks/task_follower.h"

#include "services/tasks/task_arrays.h"
#include "services/tasks/task_checks.h"

namespace uccp::tasks {
namespace {

constexpr size_t kQueuedBytesMax = 1u << 20;
constexpr size_t kLiveQueuedBytesMax = 16u << 20;
constexpr size_t kReadBytes = 1u << 20;
constexpr int64_t kLookAgainMs = 100;

}  // namespace

TaskFollower::TaskFollower(const LogEnvironment& environment, call::CallPtr call, const std::string& id)
    : env_(environment), call_(std::move(call)), ref_{call_->principal.tenant, call_->name_space, id} {}

void TaskFollower::run(const std::shared_ptr<TaskFollower>& follower) {
  const LogEnvironment& env = follower->env_;
  const TaskRef& ref = follower->ref_;
  const machine::GroupView view = env.view();
  const auto row = find_task(view, {ref.tenant, ref.name_space}, ref.id);
  if (!row) {
    return follower->call_->finish(
        Status(Code::kNotFound, "TASK_NOT_FOUND", "there is no task " + ref.id + " in this namespace")
            .with_resource("task", ref.id));
  }
  if (is_array(row->task())) {
    return follower->call_->finish(
        invalid_field("id", "is that of an array, whose elements have output of their own", element_id(ref.id, 0)));
  }
  follower->call_->keep(follower);
  env.io.post([follower, applied = view.applied()] { follower->start(applied); });
}

void TaskFollower::start(LogIndex watch_since) {
  // Calls `what` on the io executor, if there still is somebody to be called.
  const auto posted = [weak = weak_from_this(), &io = env_.io](void (TaskFollower::*what)()) {
    return [weak, &io, what] {
      io.post([weak, what] {
        if (auto self = weak.lock()) (self.get()->*what)();
      });
    };
  };
  const auto wake = posted(&TaskFollower::step);
  call_->on_drain(wake);
  call_->on_cancel(posted(&TaskFollower::stop));
  watch_ = env_.watcher.watch(
      {kWorkGroup, std::string(work::kTaskTopic), ref_.tenant, ref_.name_space}, watch_since,
      [id = ref_.id, element = element_of(ref_.id), wake](const machine::Change& change) {
        // Elements may end with their array, which alone tells of it.
        if (change.key == id || (element && change.key == element->array)) wake();
        return true;
      },
      [weak = weak_from_this(), &io = env_.io](const Status& status) {
        io.post([weak, message = std::string(status.message())] {
          auto self = weak.lock();
          if (self && !self->call_->finished()) self->end(v1::STREAM_END_REASON_RECONNECT, message);
        });
      });
  step();
}

std::optional<internal::v1::TaskRow> TaskFollower::row() const {
  return find_task(env_.view(), {ref_.tenant, ref_.name_space}, ref_.id);
}

bool TaskFollower::is_blocked() const { return call_->sink->queued_bytes() > kQueuedBytesMax; }

std::optional<std::string> TaskFollower::read_blob(const std::string& sha256, uint64_t offset) {
  auto data = env_.blobs.read(sha256, offset, kReadBytes);
  if (data) return std::move(*data);
  fail(std::move(data.error()));
  return std::nullopt;
}

void TaskFollower::subscribe(int32_t attempt, const WorkRuntime::LogStart& from) {
  subscribing_ = true;
  attempt_ = attempt;
  env_.loop.post([self = shared_from_this(), attempt, from] {
    Executor& io = self->env_.io;
    WorkRuntime::LogSink sink{
        .chunk = [self,
                  &io](const internal::v1::LogChunk& chunk) { io.post([self, chunk] { self->take_chunk(chunk); }); },
        .reply = [self,
                  &io](const internal::v1::LogReply& reply) { io.post([self, reply] { self->take_reply(reply); }); }};
    const uint64_t id = self->env_.runtime.subscribe_logs(self->ref_, attempt, from, std::move(sink));
    io.post([self, id] { self->take_subscription(id); });
  });
}

void TaskFollower::take_subscription(uint64_t id) {
  subscribing_ = false;
  subscription_ = id;
  if (call_->finished()) return stop();
  subscribed(id != 0);
}

void TaskFollower::take_chunk(const internal::v1::LogChunk& chunk) {
  if (call_->finished() || subscription_ == 0 || chunk.attempt().attempt_number() != attempt_) return;
  if (call_->sink->queued_bytes() > kLiveQueuedBytesMax) {
    return end(v1::STREAM_END_REASON_TOO_SLOW, "the client takes items too slowly; resume with the last cursor");
  }
  live_chunk(chunk);
}

void TaskFollower::take_reply(const internal::v1::LogReply& reply) {
  if (subscription_ == 0) return;
  unsubscribe();
  live_reply(reply);
}

void TaskFollower::look_again() {
  if (looks_again_) return;
  looks_again_ = true;
  env_.io.post_after(kLookAgainMs, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->looks_again_ = false;
    self->step();
  });
}

void TaskFollower::end(v1::StreamEndReason reason, const std::string& message) {
  call_->send(end_item(reason, message));
  stop();
  call_->finish(Status::ok());
}

bool TaskFollower::fail(Status status) {
  stop();
  call_->finish(std::move(status));
  return false;
}

void TaskFollower::unsubscribe() {
  if (const uint64_t id = std::exchange(subscription_, 0))
    env_.loop.post([&runtime = env_.runtime, id] { runtime.unsubscribe_logs(id); });
}

void TaskFollower::stop() {
  watch_.reset();
  unsubscribe();
}

}  // namespace uccp::tasks
