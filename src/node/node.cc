#include "node/node.h"

#include <algorithm>

#include "base/log.h"

namespace uccp::node {
namespace {

constexpr uint64_t kSpaceCheckTicks = 10;

std::unexpected<Status> no_such_group(GroupId group) {
  return fail(Code::kInternal, "GROUP_UNKNOWN", "this node has no group " + std::to_string(group.value));
}

}  // namespace

Node::Node(NodeOptions options, NodeEnvironment environment, std::vector<GroupSpec> groups)
    : options_(std::move(options)), env_(std::move(environment)),
      disk_(env_.loop, env_.io, env_.log, env_.kv, env_.clock, env_.metrics, [this](Status s) { env_.fatal(std::move(s)); }),
      hub_(env_.watch, [this](GroupId id) { return view(id); }, env_.metrics) {
  for (GroupSpec& spec : groups) {
    GroupEnvironment group_env{
        .loop = env_.loop,
        .clock = env_.clock,
        .disk = disk_,
        .log = env_.log,
        .changes = hub_,
        .metrics = env_.metrics,
        .send = [](NodeId, raft::Message) {},  // a cluster of one sends nothing
        .publish =
            [this](GroupId id, const machine::GroupView& view) {
              std::lock_guard lock(mutex_);
              published_[id].view = view;
            },
        .fatal = [this](Status s) { env_.fatal(std::move(s)); },
    };
    GroupOptions group_options = options_.group;
    group_options.raft.id = options_.id;
    groups_.emplace(spec.id, std::make_unique<Group>(spec.id, spec.name, group_options, std::move(group_env), env_.kv,
                                                     spec.domains));
  }
}

Node::~Node() = default;

Status Node::open(const std::vector<NodeId>& founders) {
  for (auto& [id, group] : groups_) {
    UCCP_RETURN_IF_ERROR(group->open(founders, env_.random.next()));
    group->on_leadership([this, id](bool ready, Term term) {
      refresh_status();
      if (const auto it = leadership_.find(id); it != leadership_.end()) it->second(ready, term);
    });
  }
  refresh_status();
  return Status::ok();
}

void Node::start() {
  env_.loop.post([this] { tick(); });
}

void Node::tick() {
  if (stopping_) return;
  for (auto& [id, group] : groups_) group->tick();
  refresh_status();
  if (ticks_++ % kSpaceCheckTicks == 0) check_space();
  timer_ = env_.loop.post_after(options_.tick_ms, [this] { tick(); });
}

void Node::check_space() {
  if (!env_.free_bytes) return;
  disk_.run(
      [this] {
        const auto free = env_.free_bytes();
        // A file system that does not say how full it is will tell by a failed write.
        const bool full = free.has_value() && *free < options_.disk_reserved_bytes;
        if (full != out_of_space_.exchange(full)) {
          log::warn(full ? "disk is nearly full: only changes that free space are taken" : "disk has room again",
                    {{"free_bytes", free.value_or(0)}, {"reserved_bytes", options_.disk_reserved_bytes}});
        }
        return Status::ok();
      },
      [] {});
}

void Node::stop(std::move_only_function<void()> done) {
  env_.loop.post([this, done = std::move(done)]() mutable {
    stopping_ = true;
    env_.loop.cancel(timer_);
    hub_.close(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down; resume with the last cursor"));
    for (auto& [id, group] : groups_) group->close();
    // One flush serves all groups: they share the state.
    disk_.run([this] { return env_.kv.flush(); }, std::move(done));
  });
}

Group* Node::find(GroupId id) {
  const auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : it->second.get();
}

void Node::propose(GroupId id, machine::Envelope envelope, machine::Proposer::Done done) {
  if (out_of_space_.load() && !(options_.frees_space && options_.frees_space(envelope.command))) {
    return done(fail(Status(Code::kExhausted, "NO_SPACE",
                            "the disk of this node is nearly full; delete, cancel or deregister something, or free disk "
                            "space. Nothing was changed")
                         .with_retry_after_ms(5000)
                         .with_help("runbooks.md#disk-full")));
  }
  env_.loop.post([this, id, envelope = std::move(envelope), done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->propose(std::move(envelope), std::move(done));
  });
}

void Node::read(GroupId id, const machine::ReadLevel& level, machine::Reader::Done done) {
  using Kind = machine::ReadLevel::Kind;
  if (level.kind == Kind::kBounded || level.kind == Kind::kSession) {
    // Served from the published state without a visit to the loop, if that is fresh enough.
    std::unique_lock lock(mutex_);
    const auto it = published_.find(id);
    const auto wanted = level.token.find(id);
    const bool fresh = it != published_.end() &&
                       (level.kind == Kind::kBounded
                            ? env_.clock.boot().ms_since(it->second.confirmed) <= level.bound_ms
                            : wanted == level.token.end() || wanted->second <= it->second.view.applied());
    if (fresh) {
      machine::GroupView view = it->second.view;
      lock.unlock();
      return done(std::move(view));
    }
  }
  env_.loop.post([this, id, level, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->read(level, std::move(done));
  });
}

std::shared_ptr<machine::Watch> Node::watch(const machine::WatchFilter& filter, LogIndex since, OnChange on_change,
                                            OnEnd on_end) {
  return hub_.watch(filter, since, std::move(on_change), std::move(on_end));
}

void Node::keep_alive(GroupId id, machine::LeaseId lease, machine::Leases::Done done) {
  env_.loop.post([this, id, lease, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->keep_alive(lease, std::move(done));
  });
}

void Node::on_leadership(GroupId group, std::function<void(bool, Term)> callback) {
  leadership_[group] = std::move(callback);
}

void Node::stalled(int64_t ms) {
  for (auto& [id, group] : groups_) group->extend_leases(ms);
}

void Node::refresh_status() {
  const BootTime now = env_.clock.boot();
  std::lock_guard lock(mutex_);
  for (auto& [id, group] : groups_) {
    status_[id] = {group->name(), group->status(), group->ready()};
    if (group->ready()) published_[id].confirmed = now;
  }
}

std::map<GroupId, NodeGroupStatus> Node::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

bool Node::ready() const {
  std::lock_guard lock(mutex_);
  return std::ranges::all_of(status_, [](const auto& entry) { return entry.second.ready; });
}

machine::GroupView Node::view(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto it = published_.find(group);
  return it == published_.end() ? machine::GroupView() : it->second.view;
}

}  // namespace uccp::node
