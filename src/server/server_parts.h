// What a server is made of, seen by the files that build it.
#pragma once

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
#include "runtime/side_executor.h"
#include "server/authenticator.h"
#include "server/backup_side.h"
#include "server/bus_side.h"
#include "server/certificate_wiring.h"
#include "server/checks_side.h"
#include "server/clock_watch.h"
#include "server/cluster_side.h"
#include "server/compute_side.h"
#include "server/dns_side.h"
#include "server/door_settings.h"
#include "server/encryption.h"
#include "server/freeing_commands.h"
#include "server/health.h"
#include "server/identity_side.h"
#include "server/kv_settings.h"
#include "server/live_settings.h"
#include "server/log_choice.h"
#include "server/raft_settings.h"
#include "server/resources_side.h"
#include "server/restore.h"
#include "server/scaling_side.h"
#include "server/secrets_side.h"
#include "server/server.h"
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
#include "services/tasks/actor_service.h"
#include "services/tasks/agent_link_service.h"
#include "services/tasks/blob_collector.h"
#include "services/tasks/request_keeper.h"
#include "services/tasks/tasks_service.h"
#include "services/tasks/tasks_state.h"
#include "services/workers/workers_service.h"
#include "services/workers/workers_state.h"
#include "storage/gathered_kv.h"
#include "storage/rocksdb/rocks_kv.h"

namespace uccp::server {

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
  SeededRandom caller_random{system_random.next()};
  SeededRandom function_random{system_random.next()};
  SeededRandom service_random{system_random.next()};
  std::optional<runtime::DirectoryLock> lock;
  storage::StoreIdentity identity;
  std::unique_ptr<DataEncryption> encryption;
  std::unique_ptr<storage::LogStore> log;
  std::unique_ptr<storage::RocksKv> rocks;
  std::unique_ptr<storage::GatheredKv> kv;                    // in front of it
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
  std::unique_ptr<runtime::SideExecutor> disk;  // of `loop` and `io`
  std::unique_ptr<ClusterSide> cluster;
  std::unique_ptr<SharedBlobs> shared_blobs;
  std::unique_ptr<BusSide> bus;
  std::unique_ptr<LocalWorkers> local_workers;  // nothing if none are scaled
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
  std::unique_ptr<tasks::ActorService> actors;
  ComputeServices compute;
  std::unique_ptr<tasks::AgentLinkService> agent_link;
  std::unique_ptr<workers::WorkersService> workers_service;
  std::unique_ptr<ResourcesSide> resources;
  call::HandlerTable handlers;       // of this node
  call::HandlerTable door_handlers;  // the same, forwarding to leaders
  std::unique_ptr<IdentitySide> identity_side;
  call::RequestQuotas request_quotas;
  std::unique_ptr<tasks::RequestKeeper> request_keeper;
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
  Status build_leaders(const ServerOptions& options, const Config& config);
  Status start_node(const ServerOptions& options);

  // server_services.cc
  Status build_services(const ServerOptions& options, const Config& config);
  void build_discovery(const ServerOptions& options, const Config& config);
  Status build_key_value(const Config& config);
  Status build_coordination(const ServerOptions& options, const Config& config);
  Status build_compute(const Config& config);
  Status may_read_object(const call::Call& call, const v1::GetObjectRequest& read) const;
  Status build_work(const Config& config);
  void build_administration(const ServerOptions& options, const Config& config);
  void build_system_topics();
  Status build_backup(const ServerOptions& options, const Config& config);
  Status build_certificates(const ServerOptions& options);
  Status build_pipeline(const ServerOptions& options, const Config& config);

  // server_doors.cc
  Result<std::string> open_etcd(const ServerOptions& options, const Config& config);
  Status open_doors(const ServerOptions& options, const Config& config);
  CertificateUsers certificate_users(const ServerOptions& options);
  machine::GroupView work_view() const { return node->view(kWorkGroup); }
};

}  // namespace uccp::server
