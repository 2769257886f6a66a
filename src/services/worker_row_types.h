// How a changed row of a worker is stored. Inside apply.
#pragma once

#include <string>

#include "machine/domain.h"
#include "machine/stable_bytes.h"
#include "services/message_types.h"
#include "services/work_types.h"

namespace uccp::work {

inline void store_worker(machine::ApplyContext& c, internal::v1::WorkerRow& row, ChangeKind kind) {
  v1::Worker& worker = *row.mutable_worker();
  worker.set_epoch(row.epoch());
  worker.set_etag(std::to_string(c.index().value));
  services::set_wall(worker.mutable_update_time(), c.envelope().wall);
  if (!worker.has_create_time()) services::set_wall(worker.mutable_create_time(), c.envelope().wall);
  kWorkers.put(c.state(), kWorkerScope, worker.id(), row);
  c.emit_in(kWorkerScope, kWorkerTopic, worker.id(), static_cast<uint8_t>(kind), machine::stable_bytes(row));
}

}  // namespace uccp::work
