// Storage and node of a server, and its start and stop; services and doors are built in files of their own.
#include "server/server.h"

#include "server/event_triggers.h"
#include "server/quota_alerts.h"
#include "server/scheduling_settings.h"
#include "server/server_parts.h"
#include "services/events/topics_state.h"

namespace uccp::server {
namespace {

constexpr int64_t kReadyTimeoutMs = 60'000;
constexpr int64_t kDrainMs = 3'000;
constexpr uint64_t kPackedChunkBytesMin = 1024;
constexpr int64_t kHandOverMs = 3'000;
constexpr int64_t kBlobGraceMarginMs = 5'000;
constexpr int64_t kCollectMsMax = 600'000;
constexpr int64_t kStateCacheBytesMin = 8 << 20;
constexpr int64_t kStateCacheBytesMax = int64_t{1} << 40;

// An outcome names blobs that were stored before it, and may come as late as its worker's lease allows.
int64_t blob_grace_ms(const Config& config, const ServerOptions& options) {
  return std::max(config.duration_ms("blob_grace"), options.worker_lease_ms + kBlobGraceMarginMs);
}

}  // namespace

Status Server::Parts::open_storage(const ServerOptions& options, const Config& config) {
  UCCP_TRY(LogOptions log_chosen, log_options(config));
  UCCP_TRY(const int64_t cache_bytes,
           config.integer_between("state_cache_bytes", kStateCacheBytesMin, kStateCacheBytesMax));
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir));
  UCCP_TRY(lock, runtime::DirectoryLock::acquire(options.data_dir));
  UCCP_TRY(identity, node::open_identity(files, options.data_dir, options.node, options.cluster_id, system_random));
  UCCP_RETURN_IF_ERROR(check_restored(files, options.data_dir));
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir + "/log"));
  UCCP_RETURN_IF_ERROR(files.make_directories(options.data_dir + "/state"));
  UCCP_TRY(encryption, DataEncryption::open(files, config, options.data_dir, clock, system_random));
  log::info("data directory opened", {{"encryption", encryption->report()}});
  log_chosen.encryption = encryption->rocks();
  UCCP_TRY(log, open_log(encryption->files(), options.data_dir + "/log", identity, log_chosen, metrics));
  UCCP_TRY(rocks, storage::RocksKv::open(
                      options.data_dir + "/state/kv",
                      {.block_cache_bytes = static_cast<uint64_t>(cache_bytes), .encryption = encryption->rocks()}));
  kv = std::make_unique<storage::GatheredKv>(*rocks);
  UCCP_RETURN_IF_ERROR(node::claim_state(*kv, options.data_dir + "/state", identity));
  UCCP_TRY(stored_blobs, objects::DirectoryBlobStore::open(encryption->files(), options.data_dir + "/blobs"));
  return Status::ok();
}

void Server::Parts::set_compression(node::GroupOptions& group, const storage::CompressionOptions& chosen) {
  group.compression = chosen;
  group.snapshot.compression = {chosen.encoding, kPackedChunkBytesMin};
  group.snapshot.saved_bytes = &storage::saved_bytes_counter(metrics, "snapshot");
}

Status Server::Parts::build_node(const ServerOptions& options, const Config& config) {
  loop = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.on_stall =
                                                                         [this](int64_t ms) {
                                                                           log::warn("the loop stalled", {{"ms", ms}});
                                                                           if (node) node->stalled(ms);
                                                                         },
                                                                     .sockets = options.cluster.enabled});
  io = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  flush = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  watch = std::make_unique<runtime::Loop>(clock);
  // A node that has peers has to answer them while its disk hangs, and commits without it.
  disk = std::make_unique<runtime::SideExecutor>(*loop, *io, clock, [this] { return node && node->alone(); });
  reads = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  blob_io = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  collecting = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 3'600'000});
  const int64_t grace_ms = blob_grace_ms(config, options);
  blobs = std::make_unique<objects::CollectedBlobs>(*stored_blobs, clock, grace_ms);
  UCCP_TRY(const uint32_t feature_level, feature_level_limit(config));
  cluster =
      std::make_unique<ClusterSide>(options.cluster, identity,
                                    ClusterSideEnvironment{.loop = *loop,
                                                           .timers = *watch,
                                                           .clock = clock,
                                                           .metrics = metrics,
                                                           .fatal = [this](Status status) { fatal(std::move(status)); },
                                                           .feature_level_max = feature_level});
  UCCP_RETURN_IF_ERROR(cluster->listen(system_random.next()));
  shared_blobs = std::make_unique<SharedBlobs>(*blobs, cluster->links(), options.node, *reads);
  node::NodeOptions node_options;
  node_options.id = options.node;
  UCCP_TRY(const LogOptions log_chosen, log_options(config));
  node_options.group.flush_every_entries = static_cast<uint64_t>(config.integer("snapshot_threshold"));
  node_options.group.log_kept_entries = node_options.group.flush_every_entries;
  node_options.log_bytes_max = static_cast<uint64_t>(config.integer("log_bytes_max"));
  set_compression(node_options.group, log_chosen.compression);
  UCCP_RETURN_IF_ERROR(apply_raft_settings(config, node_options));
  node_options.disk_reserved_bytes = static_cast<uint64_t>(config.integer("disk_reserved"));
  node_options.frees_space = frees_space;
  UCCP_TRY(const events::EventsOptions bus_options, bus_settings(config));
  bus = std::make_unique<BusSide>(bus_options);
  UCCP_TRY(const int64_t state_age_ms, state_age_max_ms(config));
  std::vector<node::GroupSpec> groups = {
      {kCoreGroup,
       "core",
       {&discovery_state, &cluster_state, &locks_state, &elections_state, &sync_state, &kv_state, &backup_state,
        &identity_state, &certificates_state, &settings_state, &secrets_state, &bus->topics()},
       {},
       state_age_ms},
      {kWorkGroup, "work", {&tasks_state, &workers_state, &compute_state, &quotas_state}}};
  for (node::GroupSpec& spec : bus->groups()) groups.push_back(std::move(spec));
  node = std::make_unique<node::Node>(
      node_options,
      node::NodeEnvironment{.loop = *loop,
                            .io = *disk,
                            .watch = *watch,
                            .clock = clock,
                            .random = node_random,
                            .log = *log,
                            .kv = *kv,
                            .metrics = metrics,
                            .network = cluster->network(),
                            .reads = reads.get(),
                            .flush = flush.get(),
                            .free_bytes = [this, dir = options.data_dir] { return files.free_bytes(dir); },
                            .fatal = [this](Status status) { fatal(std::move(status)); }},
      std::move(groups));
  page_tokens = std::make_unique<call::PageTokenSigner>(sha256("page tokens " + options.token_key_pem));
  bus->build({*node, *loop, *watch, *reads, clock, metrics, *page_tokens}, handlers, door_handlers);
  return build_leaders(options, config);
}

// What runs where a group is led.
Status Server::Parts::build_leaders(const ServerOptions& options, const Config& config) {
  tasks::WorkRuntimeOptions work_options;
  work_options.heartbeat_interval_ms = config.duration_ms("heartbeat_interval");
  work_options.agent_lease_ms = options.worker_lease_ms;
  work_options.slots_per_worker = static_cast<size_t>(config.integer("max_tasks_per_worker"));
  work_options.quarantine_ms = config.duration_ms("worker_quarantine");
  UCCP_TRY(work_options.policy, scheduling_settings(config));
  work_options.cluster_id = identity.cluster_id;
  work_options.task_timeout_default_ms = config.duration_ms("task_timeout");
  UCCP_TRY(const ScalingSettings scaling, scaling_settings(config, options, files));
  UCCP_TRY(local_workers, open_local_workers(scaling, options, files, clock));
  work_options.scaling = scaling.options;
  work = std::make_unique<tasks::WorkRuntime>(
      work_options,
      tasks::WorkRuntimeEnvironment{
          .loop = *loop,
          .clock = clock,
          .random = node_random,
          .proposer = *node,
          .reader = *node,
          .watcher = *node,
          .metrics = metrics,
          .view = [this] { return work_view(); },
          .feature_level = [this] { return node->feature_level(); },
          .open_events = open_events(handlers, clock),
          .on_quota_alert = [this](const tasks::QuotaAlert& alert) { publish_alert(handlers, clock, alert); },
          .provisioner = local_workers.get(),
          .on_scaling = [this](const tasks::ScalingDecision& decision) { publish_scaling(handlers, clock, decision); },
          .topics = [this](const machine::Scope& scope) { return events::topics_of(node->view(kCoreGroup), scope); }},
      live);
  node->on_leadership(kWorkGroup, [this](bool ready, Term term) {
    cluster->on_leadership(kWorkGroup, ready);
    work->on_leadership(ready, term);
    changed.notify();
  });
  blob_collector = std::make_unique<tasks::BlobCollector>(
      *collecting, *node, *blobs, metrics, std::clamp<int64_t>(blob_grace_ms(config, options) / 4, 100, kCollectMsMax));
  clock_watch = std::make_unique<ClockWatch>(*watch, clock, metrics);
  live.on_worker([this] { changed.notify(); });
  kv_sweeper = std::make_unique<kv::KvSweeper>(*node, *node, *loop, *reads);
  node->on_leadership(kCoreGroup, [this](bool ready, Term) {
    cluster->on_leadership(kCoreGroup, ready);
    kv_sweeper->on_leadership(ready);
    bus->on_core_leadership(ready);
    changed.notify();
  });
  for (const GroupId group : bus->group_ids()) {
    node->on_leadership(group, [this, group](bool ready, Term) {
      cluster->on_leadership(group, ready);
      bus->on_leadership(group, ready);
      changed.notify();
    });
  }
  return Status::ok();
}

Status Server::Parts::start_node(const ServerOptions& options) {
  UCCP_RETURN_IF_ERROR(node->open(cluster->founders()));
  const auto at = [](const std::string& host, uint16_t port) { return host + ":" + std::to_string(port); };
  ServerEndpoints planned{at(options.host, options.grpc_port), at(options.host, options.https_port),
                          at(options.metrics_host, options.metrics_port)};
  if (options.etcd_port) planned.etcd = at(options.host, *options.etcd_port);
  UCCP_RETURN_IF_ERROR(cluster->join(*node, planned));
  io->start("uccp-disk");
  flush->start("uccp-flush");
  watch->start("uccp-watch");
  reads->start("uccp-reads");
  blob_io->start("uccp-blobs");
  collecting->start("uccp-collect");
  loop->start("uccp-loop");
  node->start();
  blob_collector->start();
  clock_watch->start();
  running = true;
  // With others it may take any time until there is a leader: the doors open and say so.
  if (options.cluster.enabled) return Status::ok();
  if (!changed.wait(kReadyTimeoutMs, [this] { return node->ready(); })) {
    return Status(Code::kUnavailable, "NODE_NOT_READY", "the node did not become ready; see the log");
  }
  return Status::ok();
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, const Config& config,
                                              std::function<void(Status)> fatal) {
  auto parts = std::make_unique<Parts>();
  parts->fatal = std::move(fatal);
  UCCP_RETURN_IF_ERROR(parts->open_storage(options, config));
  UCCP_RETURN_IF_ERROR(parts->build_node(options, config));
  std::unique_ptr<Server> server(new Server(std::move(parts)));
  UCCP_RETURN_IF_ERROR(server->parts_->start_node(options));
  UCCP_RETURN_IF_ERROR(server->parts_->build_services(options, config));
  UCCP_RETURN_IF_ERROR(server->parts_->open_doors(options, config));
  return server;
}

Server::~Server() { stop(); }

const ServerEndpoints& Server::endpoints() const { return parts_->endpoints; }

bool Server::wait_for_worker(int64_t timeout_ms) {
  return parts_->changed.wait(timeout_ms, [this] { return parts_->live.workers_connected() > 0; });
}

void Server::stop_local_workers() {
  if (parts_->local_workers) parts_->local_workers->stop_all();
}

void Server::stop() {
  Parts& p = *parts_;
  if (std::exchange(p.stopped, true)) return;
  // It did not come so far that anything is at work.
  if (!p.running) return;
  if (p.health) p.health->set_stopping();
  if (p.backup) p.backup->give_up();
  if (p.checks) p.checks->stop();
  if (p.cluster) p.cluster->hand_over(kHandOverMs);
  if (p.pipeline) p.pipeline->close();
  if (p.certificates) p.certificates->stop();
  if (p.settings) p.settings->stop();
  if (p.identity_side) p.identity_side->stop();
  if (p.node) p.node->end_watches();
  p.rest.stop(kDrainMs);
  // The agents' streams never end by themselves: they are closed by the runtime first.
  Latch done;
  std::atomic<bool> stopped = false;
  p.loop->post([&] {
    p.work->stop();
    if (p.request_keeper) p.request_keeper->stop();
    stopped = true;
    done.notify();
  });
  done.wait(kDrainMs, [&] { return stopped.load(); });
  if (p.dns) p.dns->stop();
  p.etcd.stop(kDrainMs);
  p.grpc.stop(kDrainMs);
  p.metrics_door.stop();
  stopped = false;
  p.cluster->stop_ticking();
  p.node->stop([&] {
    stopped = true;
    done.notify();
  });
  done.wait(30'000, [&] { return stopped.load(); });
  if (p.backup) p.backup->stop();
  p.cluster->stop_network();
  for (auto* executor :
       {p.loop.get(), p.io.get(), p.flush.get(), p.watch.get(), p.reads.get(), p.blob_io.get(), p.collecting.get()}) {
    executor->stop();
  }
  if (Status status = p.log->close(); !status.is_ok())
    log::warn("the log did not close", {{"reason", status.reason()}});
}

}  // namespace uccp::server
