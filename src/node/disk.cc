#include "node/disk.h"

namespace uccp::node {

Disk::Disk(Executor& loop, Executor& io, Executor& flush, storage::LogStore& log, storage::Kv& kv, const Clock& clock,
           MetricsRegistry& metrics, Fatal fatal)
    : loop_(loop),
      io_(io),
      flush_(flush),
      log_(log),
      kv_(kv),
      clock_(clock),
      fsync_seconds_(metrics.histogram("uccp_raft_fsync_seconds", "Time to write and sync one batch of log records")),
      batch_entries_(metrics.histogram("uccp_raft_batch_entries", "Log entries made durable by one sync", {},
                                       {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024})),
      fatal_(std::move(fatal)) {}

void Disk::submit(DiskRecord record) {
  waiting_.push_back(std::move(record));
  if (!busy_) start_batch();
}

void Disk::start_batch() {
  if (failed_ || waiting_.empty()) return;
  busy_ = true;
  io_.post([this, batch = std::move(waiting_)]() mutable {
    const BootTime start = clock_.boot();
    Status status = write(batch);
    fsync_seconds_.observe(static_cast<double>(clock_.boot().us - start.us) / 1e6);
    loop_.post([this, batch = std::move(batch), status = std::move(status)]() mutable {
      busy_ = false;
      if (!status.is_ok()) {
        failed_ = true;
        return fatal_(std::move(status));
      }
      // The next batch goes to the disk before this one's consequences are worked out.
      start_batch();
      for (DiskRecord& record : batch) record.done();
    });
  });
  waiting_.clear();
}

Status Disk::write(std::vector<DiskRecord>& batch) {
  size_t entries = 0;
  for (const DiskRecord& record : batch) {
    entries += record.entries.size();
    if (record.hard_state) UCCP_RETURN_IF_ERROR(log_.set_hard_state(record.group, *record.hard_state));
    if (record.log_start) UCCP_RETURN_IF_ERROR(log_.truncate_before(record.group, *record.log_start));
    if (!record.entries.empty()) UCCP_RETURN_IF_ERROR(log_.append(record.group, record.entries));
  }
  batch_entries_.observe(static_cast<double>(entries));
  return log_.sync();
}

void Disk::flush_and_compact(GroupId group, LogPosition position, std::move_only_function<void()> done) {
  const auto truncate = [this, group, position]() -> Status {
    UCCP_RETURN_IF_ERROR(log_.truncate_before(group, position));
    // Space comes back with a sync, and nobody else may write for long. On a full disk nothing was written, and the
    // next sync does it: whoever flushes to free space must not end for the lack of it.
    const Status synced = log_.sync();
    return synced.code() == Code::kExhausted ? Status() : synced;
  };
  run_on(
      flush_, [this] { return kv_.flush(); },
      [this, truncate, done = std::move(done)]() mutable { run(truncate, std::move(done)); });
}

void Disk::run(std::move_only_function<Status()> work, std::move_only_function<void()> done) {
  run_on(io_, std::move(work), std::move(done));
}

void Disk::run_on(Executor& executor, std::move_only_function<Status()> work, std::move_only_function<void()> done) {
  executor.post([this, work = std::move(work), done = std::move(done)]() mutable {
    Status status = work();
    loop_.post([this, status = std::move(status), done = std::move(done)]() mutable {
      if (!status.is_ok() && !failed_) {
        failed_ = true;
        return fatal_(std::move(status));
      }
      done();
    });
  });
}

}  // namespace uccp::node
