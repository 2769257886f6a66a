#include "storage/placed_log_store.h"

#include <algorithm>

namespace uccp::storage {
namespace {

constexpr uint64_t kMovedAtOnceBytes = 4u << 20;

bool has(LogStore& store, GroupId group) {
  const auto groups = store.groups();
  return std::ranges::find(groups, group) != groups.end();
}

}  // namespace

Status move_log(GroupId group, LogStore& from, LogStore& to) {
  if (!has(from, group)) return {};
  // Only the last step takes anything from `from`, so it has all of it.
  UCCP_RETURN_IF_ERROR(to.remove(group));
  UCCP_TRY(const GroupLog log, from.load(group));
  UCCP_RETURN_IF_ERROR(to.set_hard_state(group, log.hard_state));
  if (log.start.index) UCCP_RETURN_IF_ERROR(to.truncate_before(group, log.start));
  for (LogIndex at = log.start.index.next(); at <= log.last.index;) {
    UCCP_TRY(const auto entries, from.read(group, at, log.last.index.next(), kMovedAtOnceBytes));
    UCCP_RETURN_IF_ERROR(to.append(group, entries));
    at = entries.back().index.next();
  }
  UCCP_RETURN_IF_ERROR(to.sync());
  UCCP_RETURN_IF_ERROR(from.remove(group));
  return from.sync();
}

Result<std::unique_ptr<PlacedLogStore>> PlacedLogStore::open(std::unique_ptr<LogStore> shared, Own own, Own retired) {
  for (const auto& [group, store] : own) UCCP_RETURN_IF_ERROR(move_log(group, *shared, *store));
  for (const auto& [group, store] : retired) {
    UCCP_RETURN_IF_ERROR(move_log(group, *store, *shared));
    UCCP_RETURN_IF_ERROR(store->close());
  }
  return std::unique_ptr<PlacedLogStore>(new PlacedLogStore(std::move(shared), std::move(own)));
}

LogStore& PlacedLogStore::of(GroupId group) {
  const auto it = own_.find(group);
  return it == own_.end() ? *shared_ : *it->second;
}

LogStore& PlacedLogStore::touch(GroupId group) {
  LogStore& store = of(group);
  written_.insert(&store);
  return store;
}

std::vector<GroupId> PlacedLogStore::groups() {
  std::vector<GroupId> all = shared_->groups();
  for (const auto& [group, store] : own_) {
    if (has(*store, group)) all.push_back(group);
  }
  std::ranges::sort(all);
  return all;
}

Status PlacedLogStore::append(GroupId group, std::span<const Entry> entries) {
  return touch(group).append(group, entries);
}

Status PlacedLogStore::set_hard_state(GroupId group, const HardState& state) {
  return touch(group).set_hard_state(group, state);
}

Status PlacedLogStore::truncate_before(GroupId group, LogPosition position) {
  return touch(group).truncate_before(group, position);
}

Status PlacedLogStore::remove(GroupId group) { return touch(group).remove(group); }

Status PlacedLogStore::begin_sync() {
  for (LogStore* store : written_) UCCP_RETURN_IF_ERROR(store->begin_sync());
  return {};
}

Status PlacedLogStore::sync() {
  if (written_.size() > 1) UCCP_RETURN_IF_ERROR(begin_sync());
  // Those that are done need not be synced again after an error that leaves the store usable.
  while (!written_.empty()) {
    UCCP_RETURN_IF_ERROR((*written_.begin())->sync());
    written_.erase(written_.begin());
  }
  return {};
}

uint64_t PlacedLogStore::own_bytes(GroupId group) {
  const auto found = own_.find(group);
  return found == own_.end() ? 0 : found->second->size_bytes();
}

uint64_t PlacedLogStore::size_bytes() {
  uint64_t bytes = shared_->size_bytes();
  for (const auto& [group, store] : own_) bytes += store->size_bytes();
  return bytes;
}

uint64_t PlacedLogStore::sync_count() const {
  uint64_t count = shared_->sync_count();
  for (const auto& [group, store] : own_) count += store->sync_count();
  return count;
}

Status PlacedLogStore::close() {
  UCCP_RETURN_IF_ERROR(sync());
  for (const auto& [group, store] : own_) UCCP_RETURN_IF_ERROR(store->close());
  return shared_->close();
}

}  // namespace uccp::storage
