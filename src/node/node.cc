#include "node/node.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "machine/planted.h"

namespace uccp::node {
namespace {

constexpr uint64_t kSpaceCheckTicks = 10;
// A state that may be of a certain age is asked about so often in that time: some questions are lost.
constexpr int64_t kConfirmsPerAge = 5;
// A tick that comes later than this tells of a stall: the process was stopped, or the loop had too much to do.
constexpr int64_t kStallMs = 500;
// Ticks that are delivered late are delivered all the same, so that a lease counted in ticks is no longer than it says.
// Beyond these they are dropped where no lease depends on them.
constexpr int64_t kLateTicksMax = 5;

std::unexpected<Status> no_such_group(GroupId group) {
  return fail(Code::kInternal, "GROUP_UNKNOWN", "this node has no group " + std::to_string(group.value));
}

}  // namespace

Node::Node(NodeOptions options, NodeEnvironment environment, std::vector<GroupSpec> groups)
    : options_(std::move(options)),
      env_(std::move(environment)),
      disk_(env_.loop, env_.io, env_.flush != nullptr ? *env_.flush : env_.io, env_.log, env_.kv, env_.clock,
            env_.metrics, [this](Status s) { env_.fatal(std::move(s)); }),
      metrics_(env_.metrics),
      transport_(env_.loop, env_.network, env_.metrics),
      hub_(
          env_.watch, [this](GroupId id) { return view(id); }, env_.metrics),
      log_bytes_(env_.metrics.gauge("uccp_raft_log_bytes", "Bytes that the logs of all groups take on the disk")) {
  for (GroupSpec& spec : groups) {
    GroupEnvironment group_env{
        .loop = env_.loop,
        .reads = env_.reads != nullptr ? *env_.reads : env_.io,
        .clock = env_.clock,
        .random = env_.random,
        .disk = disk_,
        .log = env_.log,
        .changes = hub_,
        .metrics = env_.metrics,
        .transport = transport_,
        .publish =
            [this](GroupId id, const machine::GroupView& view) {
              std::lock_guard lock(mutex_);
              published_[id].view = view;
            },
        .confirm =
            [this](GroupId id, BootTime asked) {
              std::lock_guard lock(mutex_);
              Published& published = published_[id];
              published.confirmed = published.known ? std::max(published.confirmed, asked) : asked;
              published.known = true;
            },
        .on_membership =
            [this](GroupId id, const raft::Membership& membership) {
              if (on_membership_) on_membership_(id, membership);
            },
        .fatal = [this](Status s) { env_.fatal(std::move(s)); },
    };
    GroupOptions group_options = options_.group;
    group_options.raft.id = options_.id;
    group_env.log_floor = std::move(spec.log_floor);
    group_options.confirm_every_ms = spec.age_max_ms / kConfirmsPerAge;
    published_[spec.id].age_max_ms = spec.age_max_ms;
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
  env_.loop.post([this] {
    transport_.start([this](NodeId from, const PeerItem& item) { receive(from, item); },
                     [this](NodeId peer) {
                       for (auto& [id, group] : groups_) group->peer_down(peer);
                     });
    next_tick_ = env_.clock.boot();
    tick();
  });
}

void Node::receive(NodeId from, const PeerItem& item) {
  // A group that this program does not have is of a later one.
  if (Group* group = find(item.group)) group->receive(from, item);
}

void Node::tick() {
  if (stopping_) return;
  notice_stall();
  next_tick_ = next_tick_.plus_ms(options_.tick_ms);
  for (auto& [id, group] : groups_) group->tick();
  refresh_status();
  if (ticks_++ % kSpaceCheckTicks == 0) {
    check_space();
    check_log_bytes();
  }
  schedule_tick();
}

// A tick that is due and not delivered could end a lease.
void Node::deliver_due_ticks() {
  while (!stopping_ && env_.clock.boot() >= next_tick_) {
    env_.loop.cancel(timer_);
    tick();
  }
}

void Node::schedule_tick() {
  const BootTime now = env_.clock.boot();
  const bool leases = options_.group.raft.lease_reads;
  if (!leases && now.ms_since(next_tick_) > kLateTicksMax * options_.tick_ms) next_tick_ = now;
  // Rounded up: never early.
  const int64_t delay_ms = std::max<int64_t>(0, (next_tick_.us - now.us + 999) / 1000);
  timer_ = env_.loop.post_after(delay_ms, [this] { tick(); });
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
      [this] {
        // Another voter may have room. Once: if all are full, leaderships must not go round in circles.
        if (!out_of_space_.load()) gave_way_ = false;
        else if (!stopping_ && !std::exchange(gave_way_, true)) {
          for (auto& [id, group] : groups_) group->hand_over([] {});
        }
      });
}

void Node::check_log_bytes() {
  // Logs that are the data of their groups are as large as the data.
  std::vector<GroupId> data;
  for (const auto& [id, group] : groups_) {
    if (group->log_is_data()) data.push_back(id);
  }
  struct Sizes {
    uint64_t all = 0;
    uint64_t data = 0;
  };
  auto sizes = std::make_shared<Sizes>();
  disk_.run(
      [this, sizes, data = std::move(data)] {
        sizes->all = env_.log.size_bytes();
        for (const GroupId group : data) sizes->data += env_.log.own_bytes(group);
        return Status::ok();
      },
      [this, sizes] {
        log_bytes_.set(static_cast<double>(sizes->all));
        const uint64_t bytes = sizes->all - std::min(sizes->all, sizes->data);
        if (bytes <= options_.log_bytes_max || stopping_) return;
        log::warn("the logs are too large: flushing the state and keeping few entries",
                  {{"bytes", bytes}, {"bytes_max", options_.log_bytes_max}});
        for (auto& [id, group] : groups_) group->shorten_log();
      });
}

void Node::end_watches() {
  hub_.close(Status(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down; resume with the last cursor"));
}

void Node::stop(std::move_only_function<void()> done) {
  env_.loop.post([this, done = std::move(done)]() mutable {
    on_stopped_.push_back(std::move(done));
    if (stopping_) return finish_stop();
    if (handing_over_ > 0) return;
    handing_over_ = groups_.size();
    if (groups_.empty()) return finish_stop();
    for (auto& [id, group] : groups_) {
      group->hand_over([this] {
        // Not from within the group's step.
        if (--handing_over_ == 0) env_.loop.post([this] { finish_stop(); });
      });
    }
  });
}

void Node::finish_stop() {
  if (!std::exchange(stopping_, true)) {
    env_.loop.cancel(timer_);
    end_watches();
    for (auto& [id, group] : groups_) group->close();
    transport_.stop();
  }
  // One flush serves all groups: they share the state.
  disk_.run([this] { return env_.kv.flush(); },
            [done = std::exchange(on_stopped_, {})]() mutable {
              for (auto& call : done) call();
            });
}

Group* Node::find(GroupId id) {
  const auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : it->second.get();
}

void Node::propose(GroupId id, machine::Envelope envelope, machine::Proposer::Done done) {
  if (out_of_space_.load() && !(options_.frees_space && options_.frees_space(envelope.command))) {
    return done(
        fail(Status(Code::kExhausted, "NO_SPACE",
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
    const bool ignored = machine::planted_bug(level.kind == Kind::kBounded ? "ignore_bound" : "ignore_token");
    const bool fresh =
        it != published_.end() &&
        (ignored || (level.kind == Kind::kBounded
                         ? it->second.known && env_.clock.boot().ms_since(it->second.confirmed) <= level.bound_ms
                         : wanted == level.token.end() || wanted->second <= it->second.view.applied()));
    if (fresh) {
      machine::GroupView view = it->second.view;
      lock.unlock();
      return done(std::move(view));
    }
  }
  env_.loop.post([this, id, level, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    if (level.kind == Kind::kLease) deliver_due_ticks();
    group->read(level, std::move(done));
  });
}

std::shared_ptr<machine::Watch> Node::watch(const machine::WatchFilter& filter, LogIndex since, OnChange on_change,
                                            OnEnd on_end) {
  return hub_.watch(filter, since, std::move(on_change), std::move(on_end));
}

void Node::read_log(GroupId id, LogIndex from, LogIndex to, uint64_t bytes_max, machine::LogReader::Done done) {
  env_.loop.post([this, id, from, to, bytes_max, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->read_log(from, to, bytes_max, std::move(done));
  });
}

void Node::read_whole(GroupId id, machine::Reader::Done done) {
  read(id, machine::ReadLevel::linearizable(),
       [this, id, done = std::move(done)](Result<machine::GroupView> view) mutable {
         if (!view) return done(std::move(view));
         env_.loop.post([this, id, done = std::move(done)]() mutable {
           Group* group = find(id);
           if (group == nullptr) return done(no_such_group(id));
           group->read_whole(std::move(done));
         });
       });
}

void Node::drop_copies(GroupId id) {
  env_.loop.post([this, id] {
    if (Group* group = find(id)) group->drop_copies();
  });
}

void Node::keep_alive(GroupId id, machine::LeaseId lease, machine::Leases::Done done) {
  env_.loop.post([this, id, lease, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->keep_alive(lease, std::move(done));
  });
}

void Node::time_left(GroupId id, machine::LeaseId lease, machine::Leases::Done done) {
  env_.loop.post([this, id, lease, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->time_left(lease, std::move(done));
  });
}

void Node::change_membership(GroupId id, raft::MembershipChange change, Group::ChangeDone done) {
  env_.loop.post([this, id, change = std::move(change), done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id));
    group->change_membership(change, std::move(done));
  });
}

void Node::add_learner(NodeId node, Done done) {
  change_all({raft::MembershipAction::kAddLearner, node}, {}, std::move(done));
}

void Node::promote(NodeId node, Done done) {
  change_all({raft::MembershipAction::kPromote, node}, {}, std::move(done));
}

void Node::remove(NodeId node, Done done) { change_all({raft::MembershipAction::kRemove, node}, {}, std::move(done)); }

// `left`: the groups after this one; empty: begin.
void Node::change_all(raft::MembershipStep step, std::vector<GroupId> left, Done done) {
  if (left.empty()) {
    for (auto it = groups_.rbegin(); it != groups_.rend(); ++it) left.push_back(it->first);
  }
  const GroupId id = left.back();
  left.pop_back();
  change_membership(
      id, {{step}}, [this, step, left = std::move(left), done = std::move(done)](Result<LogIndex> changed) mutable {
        // Done before, perhaps by an attempt that failed in a later group.
        static constexpr std::string_view kAlready[] = {"MEMBER_EXISTS", "MEMBER_IS_VOTER", "MEMBER_NOT_FOUND"};
        const auto& expected = kAlready[step.action == raft::MembershipAction::kAddLearner ? 0
                                        : step.action == raft::MembershipAction::kPromote  ? 1
                                                                                           : 2];
        if (!changed && changed.error().reason() != expected) return done(changed.error());
        if (left.empty()) return done(Status::ok());
        change_all(step, std::move(left), std::move(done));
      });
}

void Node::transfer(GroupId id, NodeId to, Done done) {
  env_.loop.post([this, id, to, done = std::move(done)]() mutable {
    Group* group = find(id);
    if (group == nullptr) return done(no_such_group(id).error());
    group->transfer(
        to, [done = std::move(done)](Result<LogIndex> moved) mutable { done(moved ? Status::ok() : moved.error()); });
  });
}

void Node::on_membership(std::function<void(GroupId, const raft::Membership&)> callback) {
  on_membership_ = std::move(callback);
}

void Node::on_leadership(GroupId group, std::function<void(bool, Term)> callback) {
  leadership_[group] = std::move(callback);
}

// Nobody measures a process that was stopped between two tasks, but its heartbeats waited all the same.
void Node::notice_stall() {
  const BootTime now = env_.clock.boot();
  const BootTime last = std::exchange(last_tick_, now);
  const int64_t reported_ms = std::exchange(stalled_ms_, 0);
  if (last.us == 0) return;
  const int64_t late_ms = now.ms_since(last) - options_.tick_ms - reported_ms;
  if (late_ms <= kStallMs) return;
  log::warn("a tick came late: leases are extended", {{"late_ms", late_ms}});
  stalled(late_ms);
  stalled_ms_ = 0;
}

bool Node::alone() const {
  return std::ranges::all_of(groups_, [](const auto& entry) { return entry.second->sole_voter(); });
}

void Node::stalled(int64_t ms) {
  stalled_ms_ += ms;
  for (auto& [id, group] : groups_) group->extend_leases(ms);
}

void Node::refresh_status() {
  const BootTime now = env_.clock.boot();
  bool serves = true, led = true;
  std::lock_guard lock(mutex_);
  for (auto& [id, group] : groups_) {
    NodeGroupStatus& status = status_[id];
    Published& published = published_[id];
    published.alone = group->ready() && group->sole_voter();
    status = {group->name(), group->status(), group->serving() && published.fresh(now), group->ready()};
    metrics_.update(id, status.name, status.group, status.ready);
    serves = serves && status.ready;
    led = led && status.group.leader;
    if (!published.alone) continue;
    published.confirmed = now;
    published.known = true;
  }
  using State = NodeMetrics::State;
  metrics_.set_state(!led            ? State::kNoLeader
                     : !serves       ? State::kCatchingUp
                     : out_of_space_ ? State::kNoSpace
                                     : State::kReady);
}

std::map<GroupId, NodeGroupStatus> Node::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

Term Node::known_term(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto found = status_.find(group);
  return found == status_.end() ? Term{} : found->second.group.term;
}

uint32_t Node::feature_level() const {
  std::lock_guard lock(mutex_);
  uint32_t level = machine::kFeatureLevelMax;
  for (const auto& [id, status] : status_) level = std::min(level, status.group.feature_level);
  return level;
}

NodeId Node::known_leader(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto found = status_.find(group);
  return found == status_.end() ? NodeId{} : found->second.group.leader;
}

bool Node::leads(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto found = status_.find(group);
  return found != status_.end() && found->second.leads;
}

bool Node::ready() const {
  std::lock_guard lock(mutex_);
  return std::ranges::all_of(status_, [](const auto& entry) { return entry.second.ready; });
}

bool Node::fresh(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto found = published_.find(group);
  return found != published_.end() && found->second.fresh(env_.clock.boot());
}

machine::GroupView Node::view(GroupId group) const {
  std::lock_guard lock(mutex_);
  const auto it = published_.find(group);
  return it == published_.end() ? machine::GroupView() : it->second.view;
}

}  // namespace uccp::node
