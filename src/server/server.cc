#include "server/freeing_commands.h"
#include "server/resources_side.h"
#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/hash.h"
#include "base/log.h"
#include "call/listing.h"
#include "call/pipeline/pipeline.h"
#include "doors/etcd/etcd_api.h"
#include "doors/grpc/grpc_door.h"
#include "doors/rest/metrics_door.h"
#include "doors/rest/rest_door.h"
#include "node/identity.h"
#include "node/node.h"
#include "runtime/loop.h"
#include "runtime/os_random.h"
#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"
#include "server/authenticator.h"
#include "server/backup_side.h"
#include "server/bus_side.h"
#include "server/certificate_wiring.h"
#include "server/checks_side.h"
#include "server/clock_watch.h"
#include "server/dns_side.h"
#include "server/cluster_side.h"
#include "server/encryption.h"
#include "server/health.h"
#include "server/identity_side.h"
#include "server/kv_settings.h"
#include "server/live_settings.h"
#include "server/log_choice.h"
#include "server/raft_settings.h"
#include "server/rest_settings.h"
#include "server/restore.h"
#include "server/compute_side.h"
#include "server/secrets_side.h"
#include "server/settings_wiring.h"
#include "server/shared_blobs.h"
#include "services/admin/admin_service.h"
#include "services/audit/audit_service.h"
#include "services/backup/backup_state.h"
#include "services/certificates/certificates_service.h"
#include "services/cluster/cluster_state.h"
#include "services/compute/compute_state.h"
#include "services/discovery/discovery_service.h"
#include "services/discovery/discovery_state.h"
#include "services/elections/elections_service.h"
#include "services/kv/kv_service.h"
#include "services/kv/kv_state.h"
#include "services/locks/locks_service.h"
#include "services/objects/blob_store.h"
#include "services/objects/collected_blobs.h"
#include "services/quotas/quotas_state.h"
#include "services/secrets/secrets_state.h"
#include "services/sync/sync_service.h"
#include "services/tasks/agent_link_service.h"
#include "services/tasks/blob_collector.h"
#include "services/tasks/tasks_service.h"
#include "services/tasks/tasks_state.h"
#include "services/workers/workers_service.h"
#include "services/workers/workers_state.h"
#include "storage/rocksdb/rocks_kv.h"

namespace uccp::server {
namespace {

constexpr int64_t kReadyTimeoutMs = 60'000;
constexpr int64_t kDrainMs = 3'000;
constexpr uint64_t kPackedChunkBytesMin = 1024;
constexpr int64_t kHandOverMs = 3'000;
constexpr int64_t kBlobGraceMarginMs = 5'000;
constexpr int64_t kCollectMsMax = 600'000;
// Holds the rows of about 100,000 services, so that discovery does not read from the disk.
constexpr uint64_t kStateCacheBytes = 96u << 20;

// An outcome names blobs that were stored before it, and may come as late as its worker's lease allows.
int64_t blob_grace_ms(const Config& config, const ServerOptions& options) {
  return std::max(config.duration_ms("blob_grace"), options.worker_lease_ms + kBlobGraceMarginMs);
}

// A condition that one thread waits for and others may change.
class Latch {
 public:
  void notify() {
    { std::lock_guard lock(mutex_); }
    changed_.notify_all();
  }
  bool wait(int64_t timeout_ms, const std::function<bool()>& reached) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), reached);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace

// In the order of construction: what is below uses what is above. Destroyed in reverse.
struct Server::Parts {
  runtime::RealClock clock;
  runtime::PosixFileSystem files;
  MetricsRegistry metrics;
  runtime::SystemRandom system_random;
  SeededRandom node_random{system_random.next()};
  SeededRandom call_random{system_random.next()};
  SeededRandom id_random{system_random.next()};
  SeededRandom worker_id_random{system_random.next()};
  SeededRandom function_random{system_random.next()};
  SeededRandom service_random{system_random.next()};
  std::optional<runtime::DirectoryLock> lock;
  storage::StoreIdentity identity;
  std::unique_ptr<DataEncryption> encryption;
  std::unique_ptr<storage::LogStore> log;
  std::unique_ptr<storage::RocksKv> kv;
  std::unique_ptr<objects::DirectoryBlobStore> stored_blobs;  // of this node
  std::unique_ptr<objects::CollectedBlobs> blobs;             // the same, from which some go
  discovery::DiscoveryState discovery_state;
  locks::LocksState locks_state;
  elections::ElectionsState elections_state;
  sync::SyncState sync_state;
  kv::KvState kv_state;
  identity::IdentityState identity_state;
  compute::ComputeState compute_state;
  tasks::TasksState tasks_state;
  workers::WorkersState workers_state;
  quotas::QuotasState quotas_state;
  cluster::ClusterState cluster_state;
  backup::BackupState backup_state;
  certificates::CertificatesState certificates_state;
  admin::SettingsState settings_state;
  secrets::SecretsState secrets_state;
  tasks::LiveTasks live;
  Latch changed;
  std::unique_ptr<runtime::Loop> loop, io, flush, watch, reads, blob_io, collecting;
  std::unique_ptr<ClusterSide> cluster;
  std::unique_ptr<SharedBlobs> shared_blobs;
  std::unique_ptr<BusSide> bus;
  std::unique_ptr<node::Node> node;
  std::unique_ptr<tasks::WorkRuntime> work;
  std::unique_ptr<tasks::BlobCollector> blob_collector;
  std::unique_ptr<ClockWatch> clock_watch;
  std::unique_ptr<call::PageTokenSigner> page_tokens;
  std::unique_ptr<discovery::DiscoveryService> discovery;
  std::unique_ptr<ChecksSide> checks;
  std::unique_ptr<locks::LocksService> locks;
  std::unique_ptr<elections::ElectionsService> elections;
  std::unique_ptr<sync::SyncService> sync;
  std::unique_ptr<kv::KvSweeper> kv_sweeper;
  std::unique_ptr<kv::KvService> key_value;
  std::unique_ptr<tasks::TasksService> tasks_service;
  std::unique_ptr<compute::ComputeService> compute;
  std::unique_ptr<tasks::AgentLinkService> agent_link;
  std::unique_ptr<workers::WorkersService> workers_service;
  std::unique_ptr<ResourcesSide> resources;
  call::HandlerTable handlers;  // of this node
  call::HandlerTable door_handlers;  // the same, forwarding to leaders
  std::unique_ptr<IdentitySide> identity_side;
  std::unique_ptr<call::Pipeline> pipeline;
  std::unique_ptr<NodeHealth> health;
  std::unique_ptr<LiveSettings> settings;
  std::unique_ptr<admin::AdminService> admin;
  std::unique_ptr<audit::AuditService> audit;
  std::unique_ptr<BackupSide> backup;
  std::unique_ptr<CertificateSide> certificates;
  std::unique_ptr<certificates::CertificatesService> certificates_service;
  std::unique_ptr<SecretsSide> secrets;
  doors::GrpcDoor grpc;
  doors::GrpcDoor etcd;
  std::unique_ptr<DnsSide> dns;
  doors::RestDoor rest;
  doors::MetricsDoor metrics_door;
  ServerEndpoints endpoints;
  std::function<void(Status)> fatal;
  bool running = false;
  bool stopped = false;

  Status open_storage(const ServerOptions& options, const Config& config);
  void set_compression(node::GroupOptions& group, const storage::CompressionOptions& chosen);
  Status build_node(const ServerOptions& options, const Config& config);
  void build_leaders(const ServerOptions& options, const Config& config);
  Status start_node(const ServerOptions& options);
  Status build_key_value(const Config& config);
  Status build_compute(const Config& config);
  void build_discovery(const ServerOptions& options, const Config& config);
  Status build_services(const ServerOptions& options, const Config& config);
  Status build_backup(const ServerOptions& options, const Config& config);
  Result<std::string> open_etcd(const ServerOptions& options);
  Status open_doors(const ServerOptions& options, const Config& config);
  Status build_certificates(const ServerOptions& options);
  CertificateUsers certificate_users(const ServerOptions& options);
  machine::GroupView work_view() const { return node->view(kWorkGroup); }
};

Status Server::Parts::open_storage(const ServerOptions& options, const Config& config) {
  UCCP_TRY(LogOptions log_chosen, log_options(config));
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
  UCCP_TRY(kv, storage::RocksKv::open(options.data_dir + "/state/kv", {.block_cache_bytes = kStateCacheBytes,
                                                                       .encryption = encryption->rocks()}));
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
  loop = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.on_stall = [this](int64_t ms) {
    log::warn("the loop stalled", {{"ms", ms}});
    if (node) node->stalled(ms);
  }, .sockets = options.cluster.enabled});
  io = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  flush = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  watch = std::make_unique<runtime::Loop>(clock);
  reads = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  blob_io = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 60'000});
  collecting = std::make_unique<runtime::Loop>(clock, runtime::LoopOptions{.stall_ms = 3'600'000});
  const int64_t grace_ms = blob_grace_ms(config, options);
  blobs = std::make_unique<objects::CollectedBlobs>(*stored_blobs, clock, grace_ms);
  UCCP_TRY(const uint32_t feature_level, feature_level_limit(config));
  cluster = std::make_unique<ClusterSide>(
      options.cluster, identity,
      ClusterSideEnvironment{.loop = *loop, .timers = *watch, .clock = clock, .metrics = metrics,
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
  std::vector<node::GroupSpec> groups = {
      {kCoreGroup, "core", {&discovery_state, &cluster_state, &locks_state, &elections_state, &sync_state, &kv_state,
                            &backup_state, &identity_state, &certificates_state, &settings_state, &secrets_state, &bus->topics()}},
      {kWorkGroup, "work", {&tasks_state, &workers_state, &compute_state, &quotas_state}}};
  for (node::GroupSpec& spec : bus->groups()) groups.push_back(std::move(spec));
  node = std::make_unique<node::Node>(
      node_options,
      node::NodeEnvironment{.loop = *loop, .io = *io, .watch = *watch, .clock = clock, .random = node_random,
                            .log = *log, .kv = *kv, .metrics = metrics,
                            .network = cluster->network(), .reads = reads.get(), .flush = flush.get(),
                            .free_bytes = [this, dir = options.data_dir] { return files.free_bytes(dir); },
                            .fatal = [this](Status status) { fatal(std::move(status)); }},
      std::move(groups));
  page_tokens = std::make_unique<call::PageTokenSigner>(sha256("page tokens " + options.token_key_pem));
  bus->build({*node, *loop, *watch, *reads, clock, metrics, *page_tokens}, handlers, door_handlers);
  build_leaders(options, config);
  return Status::ok();
}

// What runs where a group is led.
void Server::Parts::build_leaders(const ServerOptions& options, const Config& config) {
  tasks::WorkRuntimeOptions work_options;
  work_options.heartbeat_interval_ms = config.duration_ms("heartbeat_interval");
  work_options.agent_lease_ms = options.worker_lease_ms;
  work_options.slots_per_worker = static_cast<size_t>(config.integer("max_tasks_per_worker"));
  work_options.cluster_id = identity.cluster_id;
  work_options.task_timeout_default_ms = config.duration_ms("task_timeout");
  work = std::make_unique<tasks::WorkRuntime>(
      work_options,
      tasks::WorkRuntimeEnvironment{.loop = *loop, .clock = clock, .random = node_random, .proposer = *node,
                                    .reader = *node, .watcher = *node, .metrics = metrics,
                                    .view = [this] { return work_view(); }},
      live);
  node->on_leadership(kWorkGroup, [this](bool ready, Term term) {
    cluster->on_leadership(kWorkGroup, ready);
    work->on_leadership(ready, term);
    changed.notify();
  });
  blob_collector = std::make_unique<tasks::BlobCollector>(*collecting, *node, *blobs, metrics,
                                                          std::clamp<int64_t>(blob_grace_ms(config, options) / 4, 100, kCollectMsMax));
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

Status Server::Parts::build_key_value(const Config& config) {
  UCCP_TRY(const kv::KvOptions kv_options, kv_settings(config));
  key_value = std::make_unique<kv::KvService>(
      kv_options, kv::KvEnvironment{*node, *node, *node, *node, *kv_sweeper, *watch, *reads, clock, metrics, *page_tokens});
  key_value->add_handlers(handlers);
  return Status::ok();
}

void Server::Parts::build_discovery(const ServerOptions& options, const Config& config) {
  discovery = std::make_unique<discovery::DiscoveryService>(
      discovery::DiscoveryOptions{},
      discovery::DiscoveryEnvironment{*node, *node, *node, *node, *reads, clock, service_random, metrics, *page_tokens,
                                      [this] { return node->feature_level(); }});
  discovery->add_handlers(handlers);
  if (config.boolean("enable_health_checks")) {
    checks = std::make_unique<ChecksSide>(options.node, ChecksSide::Environment{*node, cluster->links(), discovery->observations(),
                                                                                clock, system_random.next(), metrics});
  }
}

Status Server::Parts::build_compute(const Config& config) {
  UCCP_TRY(compute, make_compute(config, handlers, {*node, *node, *shared_blobs, *blob_io, [this] { return node->out_of_space(); }, clock,
                                          function_random, *page_tokens, [this] { return node->feature_level(); }}));
  return Status::ok();
}

Status Server::Parts::build_services(const ServerOptions& options, const Config& config) {
  UCCP_TRY(identity_side, IdentitySide::make({.token_key_pem = options.token_key_pem, .cluster_id = identity.cluster_id}, config,
                                             {files, *node, *reads, clock, system_random, metrics, *page_tokens}));
  identity_side->add_handlers(handlers);
  const auto permits = identity_side->permits();
  build_discovery(options, config);
  const auto level = [this] { return node->feature_level(); };
  // Secrets of leases come from the kernel.
  locks = std::make_unique<locks::LocksService>(locks::LocksEnvironment{
      *node, *node, *node, *node, *reads, clock, system_random, metrics, *page_tokens, permits, level});
  locks->add_handlers(handlers);
  elections = std::make_unique<elections::ElectionsService>(elections::ElectionsEnvironment{
      *node, *node, *node, *node, *reads, clock, system_random, metrics, *page_tokens, permits, level});
  elections->add_handlers(handlers);
  sync = std::make_unique<sync::SyncService>(sync::SyncEnvironment{*node, *node, *node, *node, *reads, clock});
  sync->add_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_key_value(config));
  bus->start();
  tasks_service = std::make_unique<tasks::TasksService>(tasks::TasksEnvironment{
      .proposer = *node, .reader = *node,
      .logs = {.loop = *loop, .io = *reads, .runtime = *work, .blobs = *shared_blobs, .watcher = *node,
               .view = [this] { return work_view(); }},
      .live = live, .blob_io = *blob_io, .disk_is_full = [this] { return node->out_of_space(); }, .clock = clock, .random = id_random, .page_tokens = *page_tokens});
  tasks_service->register_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_compute(config));
  agent_link = std::make_unique<tasks::AgentLinkService>(*loop, *blob_io, *work, *blobs,
                                                          [this] { return node->out_of_space(); });
  agent_link->register_handlers(handlers);
  workers_service = std::make_unique<workers::WorkersService>(workers::WorkersEnvironment{
      .proposer = *node, .reader = *node,
      .overlay = [this](v1::Worker& worker, const internal::v1::WorkerRow& row) { live.overlay(worker, row); },
      .clock = clock, .random = worker_id_random, .page_tokens = *page_tokens});
  workers_service->register_handlers(handlers);
  resources = std::make_unique<ResourcesSide>(ResourcesSide::Environment{*node, live, *work, *loop, clock, *page_tokens}, handlers);

  const std::string node_name = "n" + std::to_string(options.node.value);
  health = std::make_unique<NodeHealth>(*node, node_name, [this] { return log->size_bytes(); });
  settings = std::make_unique<LiveSettings>(config, files, *blob_io);
  admin = std::make_unique<admin::AdminService>(admin::AdminEnvironment{
      .health = health->registry(), .metrics = metrics, .configuration = *settings, .clock = clock,
      .node_id = node_name, .cluster_id = identity.cluster_id,
      .feature_level = [this] { return node->feature_level(); }, .proposer = node.get(),
      .cluster_settings = [this] { return admin::kClusterSettings.get(node->view(kCoreGroup), {}, ""); }});
  admin->add_handlers(handlers);
  audit = std::make_unique<audit::AuditService>(
      audit::AuditEnvironment{.reader = *node, .work = *reads, .clock = clock, .page_tokens = *page_tokens});
  audit->add_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_backup(options, config));
  UCCP_RETURN_IF_ERROR(build_certificates(options));
  UCCP_TRY(secrets, SecretsSide::make(config, options.token_key_pem, system_random,
                                      {*node, *node, *reads, clock, *page_tokens, [this] { return node->feature_level(); }}));
  secrets->add_handlers(handlers);

  cluster->add_handlers(handlers, [this] { return health->ready(); });
  if (options.cluster.enabled) {
    const auto own = [this](const std::string& method) { return *handlers.find(call::Contract::get().find(method)); };
    const std::string agent_link_name = "uccp.internal.v1.AgentLink/";
    door_handlers.add(agent_link_name + "PutBlob", shared_blobs->copying(own(agent_link_name + "PutBlob")));
    door_handlers.add(agent_link_name + "GetBlob", shared_blobs->fetching(own(agent_link_name + "GetBlob")));
    cluster->fill_doors(handlers, door_handlers);
  }

  call::PipelineOptions pipeline_options{.calls_in_flight_max = static_cast<size_t>(config.integer("calls_in_flight_max")),
                                         .calls_waiting_max = static_cast<size_t>(config.integer("calls_waiting_max"))};
  UCCP_TRY(pipeline_options.rates, rate_rules(config));
  pipeline_options.hash_key = nodes_key(options.token_key_pem, "uccp request hashes");
  pipeline_options.policies = [side = identity_side.get()] { return side->policies(); };
  pipeline = std::make_unique<call::Pipeline>(options.cluster.enabled ? door_handlers : handlers, identity_side->authenticator(), clock, call_random, metrics, pipeline_options);
  return Status::ok();
}

Status Server::Parts::build_backup(const ServerOptions& options, const Config& config) {
  UCCP_TRY(const LogOptions log_chosen, log_options(config));
  UCCP_TRY(backup, BackupSide::open(config, options.data_dir,
                                    BackupSideEnvironment{.files = files, .node = *node, .blobs = *shared_blobs,
                                                          .clock = clock, .random = system_random, .reads = *reads,
                                                          .timers = *watch, .page_tokens = *page_tokens,
                                                          .metrics = metrics, .identity = identity, .compression = log_chosen.compression,
                                                          .groups = {{"core", kCoreGroup}, {"work", kWorkGroup}},
                                                          .every_ms = config.duration_ms("backup_every"),
                                                          .retention_ms = config.duration_ms("backup_retention")}));
  backup->add_handlers(handlers);
  return Status::ok();
}

// The etcd API on its own port: the same pipeline behind it. Answers its address, or nothing when it stays closed.
Result<std::string> Server::Parts::open_etcd(const ServerOptions& options) {
  if (!options.etcd_port) return std::string();
  doors::GrpcDoorOptions door;
  door.host = options.host;
  door.port = *options.etcd_port;
  door.certificates = door_certificates_of(certificates->current(), true);
  door.name = "etcd";
  const std::shared_ptr<doors::EtcdContext> context(new doors::EtcdContext{
      .pipeline = *pipeline, .cluster_id = hash64(identity.cluster_id), .member_id = options.node.value,
      .host = options.host, .term = [this] { return node->known_term(kCoreGroup).value; }});
  door.foreign = doors::etcd_api(context);
  UCCP_TRY(const uint16_t port, etcd.start(std::move(door), *pipeline, clock, metrics, [this] { return health->ready(); }));
  context->port = port;
  return options.host + ":" + std::to_string(port);
}

Status Server::Parts::build_certificates(const ServerOptions& options) {
  UCCP_TRY(certificates, open_certificates(options, {files, clock, metrics, *blob_io, system_random}));
  certificates_service = std::make_unique<certificates::CertificatesService>(certificates::CertificatesEnvironment{
      .proposer = *node, .reader = *node, .timers = *watch, .clock = clock, .authority = *certificates,
      .members = [this, self = node_name_of(options.node)] { return member_names(*node, self); },
      .feature_level = [this] { return node->feature_level(); }});
  certificates_service->add_handlers(handlers);
  return Status::ok();
}

CertificateUsers Server::Parts::certificate_users(const ServerOptions& options) {
  return {.node = *node, .cluster = *cluster, .identity = *identity_side, .grpc = grpc, .etcd = etcd, .rest = rest,
          .node_name = node_name_of(options.node), .has_peers = options.cluster.enabled,
          .has_etcd = options.etcd_port.has_value(), .rest_takes_certificates = options.rest_takes_certificates};
}

Status Server::Parts::open_doors(const ServerOptions& options, const Config& config) {
  const CertificateMaterial shown = certificates->current();
  doors::GrpcDoorOptions grpc_options;
  grpc_options.host = options.host;
  UCCP_TRY(grpc_options.connections_max, config.integer_between("grpc_connections_max", 1, kConnectionsMost));
  grpc_options.port = options.grpc_port;
  grpc_options.certificates = door_certificates_of(shown, true);
  UCCP_TRY(const uint16_t grpc_port, grpc.start(grpc_options, *pipeline, clock, metrics, [this] { return health->ready(); }));
  UCCP_TRY(const std::string etcd_endpoint, open_etcd(options));
  std::string dns_endpoint;
  if (options.dns_port) {
    UCCP_TRY(dns, DnsSide::open(*options.dns_port, config, options.token_key_pem, *pipeline, clock, metrics));
    dns_endpoint = dns->endpoint();
  }
  UCCP_TRY(doors::RestDoorOptions rest_options, rest_options_of(config));
  rest_options.http.host = options.host;
  rest_options.http.port = options.https_port;
  rest_options.http.certificates = door_certificates_of(shown, options.rest_takes_certificates);
  rest_options.handlers = &handlers;
  UCCP_TRY(const uint16_t https_port, rest.start(rest_options, *pipeline, clock, metrics, *health));
  UCCP_TRY(const uint16_t metrics_port,
           metrics_door.start({.host = options.metrics_host, .port = options.metrics_port}, clock, metrics, *health));
  const auto at = [](const std::string& host, uint16_t port) { return host + ":" + std::to_string(port); };
  endpoints = {at(options.host, grpc_port), at(options.host, https_port), at(options.metrics_host, metrics_port),
               etcd_endpoint, cluster->raft_address(), identity.cluster_id, dns_endpoint};
  const CertificateUsers users = certificate_users(options);
  connect_certificates(*certificates, users, [this] { certificates_service->trust_changed(); });
  identity_side->on_change([this, users] {
    pipeline->recheck_streams();
    check_open_connections(users);
  });
  follow_settings(*settings, {*pipeline, *identity_side, *certificates});
  settings->start([this] { return node->view(kCoreGroup); });
  health->set_started();
  cluster->serve(endpoints);
  if (checks) checks->start();
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
  for (auto* executor : {p.loop.get(), p.io.get(), p.flush.get(), p.watch.get(), p.reads.get(), p.blob_io.get(),
                         p.collecting.get()}) {
    executor->stop();
  }
  if (Status status = p.log->close(); !status.is_ok()) log::warn("the log did not close", {{"reason", status.reason()}});
}

}  // namespace uccp::server
