#include "sim/cluster/sim_cluster.h"

#include <algorithm>
#include <cstdio>

#include "base/bytes.h"
#include "raft/message.h"
#include "sim/cluster/sim_agent.h"
#include "sim/cluster/sim_operator.h"

namespace uccp::sim {
namespace {

constexpr int64_t kForwardUs = 1'000'000;
constexpr size_t kSparePlaces = 3;
constexpr int64_t kStartRetryMs = 200;
constexpr int64_t kDigestCheckUs = 100'000;
// Acknowledged writes that a new leader is asked for.
constexpr size_t kNewestChecked = 100;
// An entry's byte in a message: how it is packed is above its kind.
constexpr uint8_t kPackedEntry = 0x10;

// "registers:VALUE" or "tasks:ID", as clients name what was acknowledged.
bool contains(const machine::GroupView& state, const std::string& key) {
  const std::string name = key.substr(key.find(':') + 1);
  if (key.starts_with("tasks:")) return work::kTasks.contains(state, {"t", "n"}, name);
  return count_effects(state, std::stoull(name)) == 1;
}

bool of_disk(const Status& status) { return status.code() == Code::kUnavailable || status.code() == Code::kExhausted; }

}  // namespace

SimCluster::SimCluster(const SimOptions& options, bool tracing)
    : options_(options),
      tracing_(tracing),
      checkers_(options.drift_ppm_max),
      random_(options.seed),
      network_(scheduler_,
               {.latency_us_max = options.latency_us_max, .loss = options.frame_loss, .replay = options.frame_replay},
               random_.next(), [this](NodeId from, NodeId to, const node::PeerItem& item) { observe(from, to, item); }),
      machines_(options.nodes + kSparePlaces),
      operator_(std::make_unique<SimOperator>(*this, random_.next())) {
  std::vector<NodeId> founders;
  for (size_t i = 1; i <= options_.nodes; ++i) founders.push_back(NodeId(i));
  for (const NodeId id : founders) {
    machines_[last_id_].founders = founders;
    machines_[last_id_++].node = make_node(id);
  }
  operator_->founded(founders);
  for (size_t i = 0; i < options_.agents; ++i) agents_.push_back(std::make_unique<SimAgent>(*this, i, random_.next()));
}

SimCluster::~SimCluster() = default;

std::unique_ptr<SimNode> SimCluster::make_node(NodeId id) {
  return std::make_unique<SimNode>(
      scheduler_, network_, options_, id, random_.next(), checkers_,
      NodeEvents{.fatal = [this](NodeId node, const Status& status) { fatal(node, status); },
                 .leads = [this](NodeId node, GroupId group, Term term) { leads(node, group, term); },
                 .tail_cut = [this] { count_fault(Fault::kTailCut); },
                 .forward =
                     [this](NodeId from, GroupId group, machine::Envelope envelope, machine::Proposer::Done done) {
                       forward(from, group, std::move(envelope), std::move(done));
                     },
                 .note = tracing_ ? [this](const std::string& line) { note(line); }
                                  : std::function<void(const std::string&)>()});
}

void SimCluster::note(const std::string& line) const {
  if (tracing_) std::printf("[%10.6f] %s\n", static_cast<double>(now_us()) / 1e6, line.c_str());
}

size_t SimCluster::place_of(NodeId id) const {
  const auto found =
      std::ranges::find_if(machines_, [&](const Machine& machine) { return machine.node && machine.node->id() == id; });
  return static_cast<size_t>(found - machines_.begin());
}

size_t SimCluster::any_place(Random& random) const {
  size_t place = random.below(machines_.size());
  while (!has_node(place)) place = (place + 1) % machines_.size();
  return place;
}

size_t SimCluster::leader(GroupId group) const {
  size_t found = machines_.size();
  Term term;
  for (size_t place = 0; place < machines_.size(); ++place) {
    if (!running(place)) continue;
    const auto status = machines_[place].node->node().status();
    const auto& of_group = status.at(group);
    if (!of_group.leads || of_group.group.term < term) continue;
    found = place;
    term = of_group.group.term;
  }
  return found;
}

// Who speaks as a leader is one: read off the wire, so that no node is trusted to say so itself.
void SimCluster::observe(NodeId from, NodeId to, const node::PeerItem& item) {
  if (tracing_) {
    const std::string group = "group " + std::to_string(item.group.value) + ": ";
    if (item.kind != node::PeerItemKind::kRaft) {
      note(group + std::to_string(from.value) + "->" + std::to_string(to.value) + " item of kind " +
           std::to_string(static_cast<int>(item.kind)));
    } else if (const auto message = raft::decode_message(item.body)) {
      note(group + raft::to_string(*message));
    }
  }
  if (tap_) tap_(from, to, item);
  if (item.kind == node::PeerItemKind::kSnapshotEnd) {
    const auto end = node::decode_end(item.body);
    if (end && end->installed) count_fault(Fault::kSnapshot);
  }
  if (item.kind != node::PeerItemKind::kRaft) return;
  ByteReader in(item.body);
  in.u8();
  const auto kind = static_cast<raft::MessageKind>(in.u8());
  if (kind != raft::MessageKind::kAppend && kind != raft::MessageKind::kHeartbeat) return;
  in.u8();
  in.varint();
  in.varint();
  const Term term(in.varint());
  checkers_.leaders.led(item.group, term, from);
  for (int field = 0; field < 3; ++field) in.varint();
  checkers_.commits.told(item.group, term, LogIndex(in.varint()), [&](LogIndex index) {
    const size_t place = place_of(from);
    return place < machines_.size() && running(place) ? node(place).stored_term(item.group, index) : std::nullopt;
  });
  if (kind != raft::MessageKind::kAppend) return;
  in.varint();
  const bool any = in.varint() > 0;
  in.varint();
  if (any && in.u8() >= kPackedEntry) count_fault(Fault::kEntryPacked);
}

// The process cannot go on. It is ended outside of its own task.
void SimCluster::fatal(NodeId id, const Status& status) {
  note("node " + std::to_string(id.value) + " stops: " + status.to_string());
  if (!of_disk(status)) {
    checkers_.violations.add("fatal", "node " + std::to_string(id.value) + ": " + status.to_string());
  }
  const size_t place = place_of(id);
  if (place == machines_.size() || !running(place)) return;
  scheduler_.schedule_after(0, [this, id, generation = node(place).generation()] {
    const size_t place = place_of(id);
    if (place == machines_.size() || !running(place) || node(place).generation() != generation) return;
    // Power that went in the middle of an operation is what the node noticed: what was under way may be torn.
    const bool power = node(place).files().has_failed();
    crash_node(place, power ? CrashKind::kTearUnsynced : CrashKind::kLoseUnsynced, 50);
  });
}

void SimCluster::leads(NodeId id, GroupId group, Term term) {
  const size_t place = place_of(id);
  if (place == machines_.size() || !running(place)) return;
  if (tracing_) note("node " + std::to_string(id.value) + " leads group " + std::to_string(group.value));
  // A node that was paused may learn late that it led, in a term that others have left: it can acknowledge nothing.
  Term& newest = newest_led_[group];
  if (term < newest) return;
  newest = term;
  check_acknowledged(group, node(place).node().view(group), kNewestChecked);
}

// As a call between nodes: it goes the way that their messages go, may be lost as other calls are, and who asked may be
// gone when the answer comes.
void SimCluster::forward(NodeId from, GroupId group, machine::Envelope envelope, machine::Proposer::Done done) {
  const size_t own = place_of(from);
  if (own == machines_.size() || !running(own)) return;
  const auto waiting = std::make_shared<machine::Proposer::Done>(std::move(done));
  const auto finish = [this, from, waiting, generation = node(own).generation()](Result<machine::Applied> result) {
    const size_t place = place_of(from);
    if (!*waiting || place == machines_.size() || !running(place) || node(place).generation() != generation) return;
    node(place).loop().post(
        [done = std::exchange(*waiting, {}), result = std::move(result)]() mutable { done(std::move(result)); });
  };
  scheduler_.schedule_after(kForwardUs, [finish] {
    finish(fail(Code::kOutcomeUnknown, "NO_ANSWER", "the leader did not answer; it may have happened"));
  });
  const size_t to = leader(group);
  if (to < machines_.size() && to != own) {
    const auto way_us = network_.way_us(from, node(to).id());
    if (!way_us) return;
    scheduler_.schedule_after(*way_us, [this, to, serve = propose(group, std::move(envelope)), finish]() mutable {
      call(to, std::move(serve), finish);
    });
    return;
  }
  scheduler_.schedule_after(latency_us(), [finish] { finish(fail(Code::kUnavailable, "NO_LEADER", "nobody leads")); });
}

void SimCluster::check_acknowledged(GroupId group, const machine::GroupView& state, size_t count) {
  checkers_.durability.check(
      group, state.applied(), [&](const std::string& key) { return contains(state, key); }, count);
}

void SimCluster::start() {
  for (size_t place = 0; place < machines_.size(); ++place) {
    if (has_node(place)) start_node(place);
  }
  for (const auto& agent : agents_) agent->start();
  if (options_.newest_level) operator_->upgrade();
  check_digests();
}

void SimCluster::check_digests() {
  for (size_t place = 0; place < machines_.size(); ++place) {
    if (running(place)) node(place).check_digests();
  }
  scheduler_.schedule_after(kDigestCheckUs, [this] { check_digests(); });
}

void SimCluster::start_node(size_t place) {
  Machine& machine = machines_[place];
  machine.starting = false;
  const Status status = machine.node->start(machine.founders);
  const std::string name = "node " + std::to_string(machine.node->id().value);
  if (status.is_ok()) {
    note(name + " started");
    if (std::exchange(machine.damaged, false)) operator_->undamaged(machine.node->id());
    return;
  }
  note(name + " did not start: " + status.to_string());
  if (machine.damaged && status.code() == Code::kCorruption) return lose(place, "it noticed the damage");
  if (!of_disk(status)) return checkers_.violations.add("start", name + ": " + status.to_string());
  // A start that failed half way may have left writes unsynced, as any crash.
  crash_machine(*machine.node, CrashKind::kTearUnsynced);
  start_later(place, kStartRetryMs);
}

void SimCluster::start_later(size_t place, int64_t ms) {
  machines_[place].starting = true;
  scheduler_.schedule_after(ms * 1000, [this, place, id = node(place).id()] {
    if (has_node(place) && node(place).id() == id && !node(place).running()) start_node(place);
  });
}

void SimCluster::crash_node(size_t place, CrashKind kind, int64_t down_ms) {
  if (!running(place)) return;
  note("node " + std::to_string(node(place).id().value) + " crashes, kind " + std::to_string(static_cast<int>(kind)));
  for (const auto& agent : agents_) agent->node_down(node(place));
  crash_machine(node(place), kind);
  network_.reset(node(place).id());
  start_later(place, down_ms);
}

void SimCluster::crash_machine(SimNode& node, CrashKind kind) {
  const auto before = node.files().crash_counts();
  node.crash(kind);
  const auto now = node.files().crash_counts();
  if (now.lost > before.lost) count_fault(Fault::kWriteLost);
  if (now.torn > before.torn) count_fault(Fault::kWriteTorn);
}

void SimCluster::restart_node(size_t place) {
  if (!running(place) || node(place).paused()) return;
  const NodeId id = node(place).id();
  node(place).stop([this, id](bool closed) {
    const size_t place = place_of(id);
    if (place == machines_.size()) return;
    if (!closed && !node(place).files().has_failed()) note("the log of a stopped node did not close");
    crash_node(place, CrashKind::kLoseUnsynced, 20);
  });
}

NodeId SimCluster::add_machine() {
  for (size_t place = 0; place < machines_.size(); ++place) {
    if (has_node(place)) continue;
    machines_[place] = {};
    machines_[place].node = make_node(NodeId(++last_id_));
    start_later(place, 10);
    return NodeId(last_id_);
  }
  return {};
}

NodeId SimCluster::wipe_machine(size_t place) {
  retire(node(place).id());
  machines_[place].node = make_node(NodeId(++last_id_));
  start_later(place, 50 + static_cast<int64_t>(random_.below(500)));
  return NodeId(last_id_);
}

void SimCluster::retire(NodeId id) {
  const size_t place = place_of(id);
  if (place == machines_.size()) return;
  note("node " + std::to_string(id.value) + " is switched off for ever");
  for (const auto& agent : agents_) agent->node_down(node(place));
  node(place).crash(CrashKind::kLoseUnsynced);
  network_.reset(id);
  retired_.push_back(std::move(machines_[place].node));
  machines_[place] = {};
}

void SimCluster::lose(size_t place, const std::string& why) {
  note("node " + std::to_string(node(place).id().value) + " is lost: " + why);
  const NodeId old = node(place).id();
  operator_->lost(old, wipe_machine(place));
}

// A flipped bit is harmless, or noticed, or taken for the end of a torn write. After the last the log lacks what the
// node promised to keep: no check of its own can tell that from a crash, so the machine counts as lost, as after a
// repair that the operator was warned of.
void SimCluster::damage_log(size_t place, int64_t down_ms) {
  SimNode& damaged = node(place);
  crash_node(place, CrashKind::kLoseUnsynced, down_ms);
  machines_[place].damaged = true;
  operator_->damaged(damaged.id());
  const auto before = damaged.recover_log();
  if (!before) return;  // as any crash, its start will say
  const auto names = damaged.files().list(damaged.log_directory());
  if (!names || names->empty()) return;
  const std::string path = damaged.log_directory() + "/" + (*names)[random_.below(names->size())];
  const auto file = damaged.files().open(path, OpenMode::kRead);
  const auto size = file ? (*file)->size() : 0;
  if (!size || *size == 0) return;
  const uint64_t offset = random_.chance(0.5) ? random_.below(*size) : random_.below(std::min<uint64_t>(*size, 8192));
  damaged.files().flip_bit(path, offset, static_cast<int>(random_.below(8)));
  const auto after = damaged.recover_log();
  if (!after) return;
  for (const auto& [group, log] : *before) {
    const storage::GroupLog& now = after->at(group);
    if (now.last != log.last || now.hard_state != log.hard_state || now.start != log.start) {
      return lose(place, "its log ends earlier than it did");
    }
  }
}

void SimCluster::heal() {
  healed_ = true;
  network_.heal();
  for (size_t place = 0; place < machines_.size(); ++place) {
    if (!has_node(place)) continue;
    SimNode& healed = node(place);
    healed.files().set_capacity(0);
    healed.files().clear_faults();
    healed.clock().set_drift_ppm(0);
    healed.set_disk_us(options_.disk_us);
    healed.resume();
    if (healed.files().has_failed()) crash_node(place, CrashKind::kTearUnsynced, 10);
    if (!healed.running() && !machines_[place].starting) start_later(place, 10);
  }
  for (const auto& agent : agents_) agent->heal();
}

std::array<uint64_t, kFaults> SimCluster::faults() const {
  auto all = faults_;
  all[static_cast<size_t>(Fault::kFrameLost)] = network_.lost();
  all[static_cast<size_t>(Fault::kFrameReplayed)] = network_.replayed();
  return all;
}

int64_t SimCluster::latency_us() {
  return 20 + static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.latency_us_max)));
}

void SimCluster::call(size_t place, Serve serve, Reply reply) {
  const auto lost = [this] {
    const bool loses = !healed_ && options_.loss > 0 && random_.chance(options_.loss);
    if (loses) count_fault(Fault::kCallLost);
    return loses;
  };
  if (lost()) return;
  if (!running(place)) {
    scheduler_.schedule_after(latency_us(),
                              [reply] { reply(fail(Code::kUnavailable, "NODE_DOWN", "nobody listens")); });
    return;
  }
  SimNode& target = node(place);
  target.door().post_at(
      now_us() + latency_us(), [this, &target, lost, serve = std::move(serve), reply = std::move(reply)] {
        serve(target, [this, lost, reply](Result<machine::Applied> result) {
          if (lost()) return;
          scheduler_.schedule_after(latency_us(),
                                    [reply, result = std::move(result)]() mutable { reply(std::move(result)); });
        });
      });
}

SimCluster::Serve SimCluster::propose(GroupId group, machine::Envelope envelope) {
  return [group, envelope = std::move(envelope)](SimNode& node, Reply reply) {
    node.node().propose(group, envelope, std::move(reply));
  };
}

SimCluster::Serve SimCluster::read(GroupId group, machine::ReadLevel level, Query query) {
  return [group, level = std::move(level), query = std::move(query)](SimNode& node, Reply reply) {
    node.node().read(group, level, [query, reply](Result<machine::GroupView> view) {
      if (!view) return reply(std::unexpected(view.error()));
      reply(machine::Applied{view->applied(), query(*view)});
    });
  };
}

SimCluster::Serve SimCluster::keep_alive(GroupId group, machine::LeaseId lease) {
  return [group, lease](SimNode& node, Reply reply) {
    node.node().keep_alive(group, lease, [reply](Result<int64_t> ttl_ms) {
      if (!ttl_ms) return reply(std::unexpected(ttl_ms.error()));
      reply(machine::Applied{LogIndex(0), std::to_string(*ttl_ms)});
    });
  };
}

SimCluster::Serve SimCluster::cancel_task(machine::Envelope envelope, internal::v1::CancelCommand command) {
  return [envelope = std::move(envelope), command = std::move(command)](SimNode& node, Reply reply) {
    node.loop().post([&node, envelope, command, reply]() mutable {
      node.work().cancel(std::move(envelope), std::move(command), std::move(reply));
    });
  };
}

SimCluster::Serve SimCluster::service(ServiceCall call) {
  return [call = std::move(call)](SimNode& node, Reply reply) { node.services().call(call, std::move(reply)); };
}

}  // namespace uccp::sim
