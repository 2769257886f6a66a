// The table of configuration keys: those of the specification first, in its order, then our own.
#include <array>

#include "server/config.h"

namespace uccp::server {
namespace {

using enum KeyType;
using enum KeyEffect;

constexpr auto kKeys = std::to_array<ConfigKey>({
    {"node_id", kString, "n1", kActs, "name of this node in its cluster: n1, n2, ..."},
    {"grpc_port", kPort, "50000", kActs, "port of the gRPC API"},
    {"https_port", kPort, "8443", kActs, "port of the REST API"},
    {"raft_port", kPort, "50061", kActs, "port for the other nodes of the cluster; a single node needs none"},
    {"metrics_port", kPort, "9100", kActs, "port of metrics and health, plain HTTP"},
    {"tls_cert_file", kString, "", kActs, "certificate of the server, PEM; unset: issued by the embedded authority"},
    {"tls_key_file", kString, "", kActs, "private key of the server, PEM"},
    {"tls_ca_file", kString, "", kActs, "authorities of client certificates, PEM"},
    {"enable_mtls", kBool, "true", kActs, "ask clients for a certificate; agents and nodes always need one"},
    {"raft_dir", kString, "/data/raft", kActs, "data directory of the node"},
    {"join_address", kString, "", kActs,
     "HOST:PORT of the gRPC API of nodes of the cluster, separated by commas; a new node joins there"},
    {"vault_addr", kString, "", kUnused, "HashiCorp Vault; unset: the embedded secret store"},
    {"vault_token", kSecret, "", kUnused, "token for Vault"},
    {"vault_secret_path", kString, "secret/uccp", kUnused, "path in Vault"},
    {"postgres_url", kSecret, "", kUnused, "PostgreSQL for metadata; unset: the replicated state"},
    {"redis_url", kSecret, "", kUnused, "Redis as a cache; unset: the embedded cache"},
    {"s3_endpoint", kString, "", kUnused, "S3 for artifacts; unset: the embedded blob store"},
    {"s3_access_key", kSecret, "", kUnused, "access key for S3"},
    {"s3_secret_key", kSecret, "", kUnused, "secret key for S3"},
    {"s3_bucket", kString, "uccp", kUnused, "bucket in S3"},
    {"elasticsearch_url", kString, "", kUnused, "Elasticsearch for logs; unset: the embedded store"},
    {"prometheus_url", kString, "", kUnused, "Prometheus; unset: the embedded engine"},
    {"grafana_url", kString, "", kUnused, "Grafana to provision dashboards in"},
    {"jaeger_endpoint", kString, "", kUnused, "Jaeger collector; unset: the embedded store"},
    {"ray_address", kString, "", kUnused, "Ray cluster; unset: the native executor"},
    {"enable_tracing", kBool, "true", kUnused, "distributed tracing"},
    {"log_level", kString, "INFO", kActs, "TRACE, DEBUG, INFO, WARN, ERROR or FATAL"},
    {"log_format", kString, "json", kActs, "json or text"},
    {"enable_profiling", kBool, "false", kUnused, "continuous profiling"},
    {"auth_provider", kString, "jwt", kUnused, "jwt, oidc or saml"},
    {"oidc_issuer_url", kString, "", kUnused, "OIDC issuer"},
    {"enable_audit_log", kBool, "true", kUnused, "the audit trail of mutations; it is always on"},
    {"audit_log_backend", kString, "", kUnused, "where audit goes; unset: the replicated state"},
    {"max_workers", kInteger, "1000", kUnused, "most workers connected"},
    {"max_tasks_per_worker", kInteger, "100", kActs, "most attempts at a time on one worker"},
    {"task_timeout", kDuration, "1h", kActs, "timeout of tasks that name none"},
    {"enable_auto_scaling", kBool, "true", kUnused, "autoscaling of workers"},
    {"min_workers", kInteger, "1", kUnused, "least workers when autoscaling"},
    {"max_workers_scaling", kInteger, "100", kUnused, "most workers when autoscaling"},
    {"scaling_metric", kString, "cpu", kUnused, "metric for autoscaling"},
    {"scaling_threshold", kString, "0.8", kUnused, "threshold for autoscaling"},
    {"enable_gpu_scheduling", kBool, "true", kUnused, "placement by GPUs"},
    {"enable_cost_tracking", kBool, "true", kUnused, "cost of tasks"},
    {"cloud_provider", kString, "", kUnused, "aws, gcp or azure"},
    {"region", kString, "", kUnused, "region of this node"},
    {"availability_zones", kString, "", kUnused, "zones of this node, separated by commas"},
    {"listen_host", kString, "127.0.0.1", kActs, "address that the API ports listen on; 0.0.0.0 for all"},
    {"advertise_host", kString, "", kActs, "host under which the other nodes reach this one; unset: listen_host"},
    {"cluster_id", kString, "", kActs, "id of the cluster; unset: that of the node's certificate or data directory"},
    {"initial_members", kString, "", kActs,
     "founders of a cluster and their raft addresses: n1=HOST:PORT,n2=HOST:PORT,...; the same on all of them"},
    {"metrics_host", kString, "127.0.0.1", kActs, "address that the metrics port listens on"},
    {"heartbeat_interval", kDuration, "1s", kActs, "time between heartbeats of agents"},
    {"raft_election_timeout", kDuration, "1s", kActs,
     "a follower that hears nothing for one to two times this long elects another leader; 1s to 10s"},
    {"raft_heartbeat_interval", kDuration, "100ms", kActs,
     "between heartbeats of the leader of a group; 100ms to 500ms, at most a quarter of the timeout"},
    {"raft_lease_reads", kBool, "false", kActs,
     "true, on all nodes: reads of level lease need no round trip and rely on clocks; leaders that die are noticed later"},
    {"worker_lease", kDuration, "60s", kActs, "an agent without a confirmed heartbeat for so long stops its tasks"},
    {"log_store", kString, "wal", kActs, "what keeps the log: wal, rocksdb or lmdb; fixed once the directory has a log"},
    {"log_compression", kString, "lz4", kActs, "compression of large log entries and of snapshots: none, lz4 or zstd"},
    {"log_compression_above", kInteger, "4096", kActs, "smallest log entry that is compressed, in bytes"},
    {"own_log_groups", kString, "", kActs, "groups whose log has files of its own, separated by commas"},
    {"log_bytes_max", kInteger, "2147483648", kActs,
     "bytes of all logs beyond which the state is flushed and hardly any applied entry is kept"},
    {"blob_grace", kDuration, "1h", kActs,
     "time for which blobs are kept that no task refers to; at least worker_lease and 5 s"},
    {"disk_reserved", kInteger, "268435456", kActs,
     "free bytes below which only changes that free space are taken"},
    {"calls_in_flight_max", kInteger, "2000", kActs, "unary calls at work on this node at a time"},
    {"kv_request_bytes_max", kInteger, "1572864", kActs, "most bytes of one change of the key-value store"},
    {"kv_bytes_max", kInteger, "2147483648", kActs,
     "most bytes of keys, values and history in a namespace without a quota of its own"},
    {"kv_keys_max", kInteger, "10000000", kActs, "most keys in a namespace without a quota of its own"},
    {"kv_leases_max", kInteger, "1000000", kActs, "most leases of keys in a namespace without a quota of its own"},
    {"kv_txn_operations_max", kInteger, "128", kActs, "most comparisons, and most operations of a list, in a transaction"},
    {"rate_limit_write", kInteger, "0", kActs, "write calls a second of one principal; 0: not limited"},
    {"rate_limit_read", kInteger, "0", kActs, "read calls a second of one principal; 0: not limited"},
});

}  // namespace

std::span<const ConfigKey> config_keys() { return kKeys; }

}  // namespace uccp::server
