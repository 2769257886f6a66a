// Builds the domains' services and the pipeline in front of them.
#include "server/caller_rights.h"
#include "server/event_triggers.h"
#include "server/server_parts.h"

namespace uccp::server {
namespace {

Status state_stale() {
  return Status(Code::kUnavailable, "STATE_STALE",
                "this node has not heard from a majority of the cluster for a while (state_age_max), and who may do "
                "what may have changed since; nothing was done, ask another node")
      .with_retry_after_ms(500)
      .with_help("runbooks.md#lost-quorum");
}

}  // namespace

Status Server::Parts::build_key_value(const Config& config) {
  UCCP_TRY(const kv::KvOptions kv_options, kv_settings(config));
  key_value = std::make_unique<kv::KvService>(
      kv_options,
      kv::KvEnvironment{*node, *node, *node, *node, *kv_sweeper, *watch, *reads, clock, metrics, *page_tokens});
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
    checks = std::make_unique<ChecksSide>(
        options.node, ChecksSide::Environment{*node, cluster->links(), discovery->observations(), clock,
                                              system_random.next(), metrics});
  }
}

Status Server::Parts::may_read_object(const call::Call& call, const v1::GetObjectRequest& read) const {
  return may_call(*identity_side->policies(), clock, call, "uccp.v1.ComputeExecution/GetObject", read.key(),
                  read.SerializeAsString());
}

Status Server::Parts::build_compute(const Config& config) {
  UCCP_TRY(compute, make_compute(config, handlers,
                                 {*node, *node, *shared_blobs, *blob_io, [this] { return node->out_of_space(); }, clock,
                                  function_random, *page_tokens, [this] { return node->feature_level(); },
                                  [this](const auto& call, const auto& read) { return may_read_object(call, read); }}));
  return Status::ok();
}

Status Server::Parts::build_backup(const ServerOptions& options, const Config& config) {
  UCCP_TRY(const LogOptions log_chosen, log_options(config));
  // Those that others refer to come first.
  std::vector<backup::BackedGroup> groups{{"core", kCoreGroup}, {"work", kWorkGroup}};
  for (const GroupId group : bus->group_ids()) {
    groups.push_back(
        {events::bus_group_name(static_cast<uint32_t>(group.value - events::kFirstBusGroup)), group, true});
  }
  UCCP_TRY(backup, BackupSide::open(config, options.data_dir,
                                    BackupSideEnvironment{.files = files,
                                                          .node = *node,
                                                          .blobs = *shared_blobs,
                                                          .clock = clock,
                                                          .random = system_random,
                                                          .reads = *reads,
                                                          .timers = *watch,
                                                          .page_tokens = *page_tokens,
                                                          .metrics = metrics,
                                                          .identity = identity,
                                                          .compression = log_chosen.compression,
                                                          .groups = std::move(groups),
                                                          .every_ms = config.duration_ms("backup_every"),
                                                          .retention_ms = config.duration_ms("backup_retention")}));
  backup->add_handlers(handlers);
  return Status::ok();
}

Status Server::Parts::build_certificates(const ServerOptions& options) {
  UCCP_TRY(certificates, open_certificates(options, {files, clock, metrics, *blob_io, system_random}));
  certificates_service = std::make_unique<certificates::CertificatesService>(certificates::CertificatesEnvironment{
      .proposer = *node,
      .reader = *node,
      .timers = *watch,
      .clock = clock,
      .authority = *certificates,
      .members = [this, self = node_name_of(options.node)] { return member_names(*node, self); },
      .feature_level = [this] { return node->feature_level(); }});
  certificates_service->add_handlers(handlers);
  return Status::ok();
}

Status Server::Parts::build_coordination(const ServerOptions& options, const Config& config) {
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
  return Status::ok();
}

Status Server::Parts::build_work(const Config& config) {
  tasks_service = std::make_unique<tasks::TasksService>(tasks::TasksEnvironment{
      .proposer = *node,
      .reader = *node,
      .logs = {.loop = *loop,
               .io = *reads,
               .runtime = *work,
               .blobs = *shared_blobs,
               .watcher = *node,
               .view = [this] { return work_view(); }},
      .live = live,
      .blob_io = *blob_io,
      .disk_is_full = [this] { return node->out_of_space(); },
      .clock = clock,
      .random = id_random,
      .page_tokens = *page_tokens,
      .feature_level = [this] { return node->feature_level(); },
      .may_subscribe =
          [this](const call::Call& call, const std::string& topic) {
            return may_subscribe(*identity_side->policies(), clock, call, topic);
          },
      .may_read_object = [this](const auto& call, const auto& read) { return may_read_object(call, read); }});
  tasks_service->register_handlers(handlers);
  actors = std::make_unique<tasks::ActorService>(tasks::ActorEnvironment{
      .loop = *loop, .runtime = *work, .view = [this] { return work_view(); }, .random = caller_random});
  actors->register_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_compute(config));
  agent_link = std::make_unique<tasks::AgentLinkService>(
      *loop, *blob_io, *work, *blobs,
      tasks::AgentLinkService::Questions{
          .disk_is_full = [this] { return node->out_of_space(); },
          .may_multiplex = [permits = identity_side->permits()](
                               const call::Principal& caller) { return permits(caller, "agent.multiplex"); }});
  agent_link->register_handlers(handlers);
  workers_service = std::make_unique<workers::WorkersService>(workers::WorkersEnvironment{
      .proposer = *node,
      .reader = *node,
      .overlay = [this](v1::Worker& worker, const internal::v1::WorkerRow& row) { live.overlay(worker, row); },
      .clock = clock,
      .random = worker_id_random,
      .page_tokens = *page_tokens});
  workers_service->register_handlers(handlers);
  resources = std::make_unique<ResourcesSide>(
      ResourcesSide::Environment{*node, live, *work, *loop, clock, *page_tokens}, handlers);
  return Status::ok();
}

void Server::Parts::build_administration(const ServerOptions& options, const Config& config) {
  const std::string node_name = "n" + std::to_string(options.node.value);
  health = std::make_unique<NodeHealth>(*node, node_name, [this] { return log->size_bytes(); });
  settings = std::make_unique<LiveSettings>(config, files, *blob_io);
  admin = std::make_unique<admin::AdminService>(admin::AdminEnvironment{
      .health = health->registry(),
      .metrics = metrics,
      .configuration = *settings,
      .clock = clock,
      .node_id = node_name,
      .cluster_id = identity.cluster_id,
      .feature_level = [this] { return node->feature_level(); },
      .proposer = node.get(),
      .cluster_settings = [this] { return admin::kClusterSettings.get(node->view(kCoreGroup), {}, ""); }});
  admin->add_handlers(handlers);
  audit = std::make_unique<audit::AuditService>(
      audit::AuditEnvironment{.reader = *node, .work = *reads, .clock = clock, .page_tokens = *page_tokens});
  audit->add_handlers(handlers);
}

// Changes of tasks, workers, locks, services and the audit trail are topics.
void Server::Parts::build_system_topics() {
  std::vector<services::ChangeTopic> topics = audit->change_topics();
  topics.push_back(tasks_service->change_topic());
  topics.push_back(workers_service->change_topic());
  topics.push_back(locks->change_topic());
  topics.push_back(discovery->change_topic());
  bus->show_changes(std::move(topics),
                    [side = identity_side.get()](const call::Call& call, const std::string& permission) {
                      return side->policies()->permits(call.principal, permission, call.name_space);
                    });
}

// What calls reach through the doors: a cluster forwards those that another node has to answer.
Status Server::Parts::build_pipeline(const ServerOptions& options, const Config& config) {
  cluster->add_handlers(
      handlers, [this] { return health->ready(); },
      [this](call::Call& call, const std::string& request) { return pipeline->authorize_again(call, request); });
  if (options.cluster.enabled) {
    const auto own = [this](const std::string& method) { return *handlers.find(call::Contract::get().find(method)); };
    const std::string agent_link_name = "uccp.internal.v1.AgentLink/";
    door_handlers.add(agent_link_name + "PutBlob", shared_blobs->copying(own(agent_link_name + "PutBlob")));
    door_handlers.add(agent_link_name + "GetBlob", shared_blobs->fetching(own(agent_link_name + "GetBlob")));
    cluster->fill_doors(handlers, door_handlers);
  }

  UCCP_RETURN_IF_ERROR(config.integer_between("calls_in_flight_tenant_percent", 1, 100));
  const call::Pipeline::Limits limits = call_limits(config);
  call::PipelineOptions pipeline_options{.calls_in_flight_max = limits.calls_in_flight_max,
                                         .calls_waiting_max = limits.calls_waiting_max,
                                         .calls_in_flight_tenant_percent = limits.calls_in_flight_tenant_percent};
  UCCP_TRY(pipeline_options.rates, rate_rules(config));
  pipeline_options.quotas = &request_quotas;
  pipeline_options.hash_key = nodes_key(options.token_key_pem, "uccp request hashes");
  pipeline_options.policies = [side = identity_side.get()] { return side->policies(); };
  pipeline_options.current = [this] { return node->fresh(kCoreGroup) ? Status::ok() : state_stale(); };
  pipeline =
      std::make_unique<call::Pipeline>(options.cluster.enabled ? door_handlers : handlers,
                                       identity_side->authenticator(), clock, call_random, metrics, pipeline_options);
  return Status::ok();
}

Status Server::Parts::build_services(const ServerOptions& options, const Config& config) {
  UCCP_TRY(identity_side,
           IdentitySide::make({.token_key_pem = options.token_key_pem, .cluster_id = identity.cluster_id}, config,
                              {files, *node, *reads, clock, system_random, metrics, *page_tokens}));
  identity_side->add_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_coordination(options, config));
  UCCP_RETURN_IF_ERROR(build_work(config));
  build_administration(options, config);
  build_system_topics();
  UCCP_RETURN_IF_ERROR(build_backup(options, config));
  UCCP_RETURN_IF_ERROR(build_certificates(options));
  UCCP_TRY(secrets,
           SecretsSide::make(config, options.token_key_pem, system_random,
                             {*node, *node, *reads, clock, *page_tokens, [this] { return node->feature_level(); }}));
  secrets->add_handlers(handlers);
  UCCP_RETURN_IF_ERROR(build_pipeline(options, config));
  request_keeper = std::make_unique<tasks::RequestKeeper>(
      tasks::RequestKeeperEnvironment{.loop = *loop,
                                      .clock = clock,
                                      .proposer = bus->anywhere(),
                                      .watcher = *node,
                                      .view = [this] { return work_view(); },
                                      .feature_level = [this] { return node->feature_level(); },
                                      .node = "n" + std::to_string(options.node.value)},
      request_quotas);
  loop->post([keeper = request_keeper.get()] { keeper->start(); });
  return Status::ok();
}

}  // namespace uccp::server
