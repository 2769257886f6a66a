#include "storage/table_log_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "storage/log_checks.h"
#include "storage/table_format.h"

namespace uccp::storage {
namespace {

// An unsynced entry counts for at least this.
constexpr uint64_t kEntryOverhead = sizeof(Entry);

uint64_t cost(const Entry& entry) { return entry.data.size() + kEntryOverhead; }

}  // namespace

Result<std::unique_ptr<TableLogStore>> TableLogStore::open(std::unique_ptr<DurableTable> table,
                                                           const std::string& directory, const StoreIdentity& identity,
                                                           Options options) {
  std::unique_ptr<TableLogStore> store(new TableLogStore(std::move(table), directory, options));
  UCCP_RETURN_IF_ERROR(store->check_identity(identity));
  UCCP_RETURN_IF_ERROR(store->load_groups());
  UCCP_RETURN_IF_ERROR(store->load_entries());
  return store;
}

Status TableLogStore::damaged(const std::string& what) const {
  return Status(
      Code::kCorruption, "LOG_DAMAGED",
      fmt::format("the log in {} is damaged: {}. What was acknowledged is lost here, so it cannot be repaired on "
                  "this node alone: remove the node from the cluster, clear its data directory and add it "
                  "again; on a single node restore a backup",
                  directory_, what));
}

Status TableLogStore::check_identity(const StoreIdentity& identity) {
  std::optional<std::string> first_key, format;
  UCCP_RETURN_IF_ERROR(table_->scan("", std::string(1, '\xff'), [&](std::string_view key, std::string_view value) {
    if (!first_key) first_key = std::string(key);
    if (key == table::format_key()) format = std::string(value);
    return key < table::format_key();
  }));
  if (!first_key) {
    return table_->commit({.erased = {}, .puts = {{table::format_key(), table::encode_format(identity)}}});
  }
  // 'e' sorts before 'f': entries without a format row were not written by this program.
  if (!format) return damaged("the row that tells whose log it is, is missing");
  auto found = table::parse_format(*format);
  if (!found && found.error().code() == Code::kCorruption) return damaged(found.error().message());
  if (!found) return Status(found.error().code(), found.error().reason(), directory_ + ": " + found.error().message());
  if (*found == identity) return {};
  return Status(
      Code::kFailedPrecondition, "LOG_OF_ANOTHER_NODE",
      fmt::format("the log in {} belongs to cluster '{}' node {} incarnation {:x}; this is cluster '{}' node {} "
                  "incarnation {:x}. Start with the data directory of this node",
                  directory_, found->cluster_id, found->node.value, found->incarnation.value, identity.cluster_id,
                  identity.node.value, identity.incarnation.value));
}

Status TableLogStore::load_groups() {
  Status bad;
  UCCP_RETURN_IF_ERROR(table_->scan(table::group_key(GroupId()), table::groups_end(), [&](auto key, auto value) {
    const auto group = table::parse_group_key(key);
    const auto row = group ? table::parse_group(*group, value) : std::nullopt;
    if (!row) {
      bad = damaged(group ? fmt::format("the state of group {}", group->value) : "a key that no log has");
      return false;
    }
    Log& log = logs_[*group];
    log.hard_state = row->hard_state;
    log.start = row->start;
    log.last = log.stored_last = row->start.index;
    log.stored_first = row->start.index.next();
    log.stored_row = true;
    return true;
  }));
  return bad;
}

Status TableLogStore::load_entries() {
  Status bad;
  UCCP_RETURN_IF_ERROR(
      table_->scan(table::entry_key(GroupId(), LogIndex()), table::entries_end(), [&](auto key, auto value) {
        const auto at = table::parse_entry_key(key);
        const auto entry = at ? table::parse_entry(at->group, at->index, value) : std::nullopt;
        const auto log = at ? logs_.find(at->group) : logs_.end();
        if (!entry || log == logs_.end()) {
          bad = damaged(at ? fmt::format("entry {} of group {}", at->index.value, at->group.value)
                           : "a key that no log has");
          return false;
        }
        if (at->index != log->second.last.next()) {
          bad = damaged(fmt::format("entry {} of group {} is missing", log->second.last.next().value, at->group.value));
          return false;
        }
        log->second.terms.append(at->index, entry->term);
        log->second.last = log->second.stored_last = at->index;
        ++entries_loaded_;
        return true;
      }));
  return bad;
}

std::string TableLogStore::report() const {
  return fmt::format("{} groups, {} entries, {} bytes", logs_.size(), entries_loaded_, table_->size_bytes());
}

Status TableLogStore::usable() const {
  if (failure_.is_ok()) return {};
  return Status(Code::kUnavailable, "LOG_STORE_FAILED",
                "the log in " + directory_ + " stopped: " + failure_.to_string() + ". Restart the node");
}

Status TableLogStore::fail_for_good(Status why) {
  failure_ = why;
  return why;
}

std::vector<GroupId> TableLogStore::groups() {
  std::vector<GroupId> ids;
  for (const auto& [id, log] : logs_) {
    if (log.hard_state != HardState() || log.position() != LogPosition()) ids.push_back(id);
  }
  return ids;
}

Result<GroupLog> TableLogStore::load(GroupId group) {
  UCCP_RETURN_IF_ERROR(usable());
  const auto it = logs_.find(group);
  if (it == logs_.end()) return GroupLog();
  return GroupLog{it->second.hard_state, it->second.start, it->second.position()};
}

void TableLogStore::drop_unsynced_from(Log& log, LogIndex index) {
  while (!log.unsynced.empty() && log.unsynced.back().index >= index) {
    unsynced_bytes_ -= cost(log.unsynced.back());
    log.unsynced.pop_back();
  }
}

Status TableLogStore::append(GroupId group, std::span<const Entry> entries) {
  UCCP_RETURN_IF_ERROR(usable());
  if (entries.empty()) return {};
  UCCP_TRY(const GroupLog known, load(group));
  UCCP_RETURN_IF_ERROR(check_append(group, known.start.index, known.last.index, entries));
  Log& log = logs_[group];
  const LogIndex first = entries.front().index;
  if (first <= log.last) {
    drop_unsynced_from(log, first);
    log.terms.drop_from(first);
  }
  for (const Entry& entry : entries) {
    log.terms.append(entry.index, entry.term);
    log.unsynced.push_back(entry);
    unsynced_bytes_ += cost(entry);
  }
  log.last = entries.back().index;
  changed_.insert(group);
  return unsynced_bytes_ > options_.unsynced_bytes_max ? sync() : Status();
}

Status TableLogStore::set_hard_state(GroupId group, const HardState& state) {
  UCCP_RETURN_IF_ERROR(usable());
  logs_[group].hard_state = state;
  changed_.insert(group);
  return {};
}

Status TableLogStore::truncate_before(GroupId group, LogPosition position) {
  UCCP_RETURN_IF_ERROR(usable());
  UCCP_TRY(const GroupLog known, load(group));
  if (position.index <= known.start.index) return {};
  Log& log = logs_[group];
  if (position.index > log.last || log.term_at(position.index) != position.term) {
    drop_unsynced_from(log, LogIndex());
    log.terms.clear();
    log.last = position.index;
  }
  while (!log.unsynced.empty() && log.unsynced.front().index <= position.index) {
    unsynced_bytes_ -= cost(log.unsynced.front());
    log.unsynced.pop_front();
  }
  log.start = position;
  log.terms.drop_before(position.index.next());
  changed_.insert(group);
  return {};
}

Status TableLogStore::remove(GroupId group) {
  UCCP_RETURN_IF_ERROR(usable());
  const auto it = logs_.find(group);
  if (it == logs_.end()) return {};
  drop_unsynced_from(it->second, LogIndex());
  if (it->second.stored_row) removed_.insert(group);
  logs_.erase(it);
  changed_.erase(group);
  return {};
}

// What leads from the rows of a group in the table to the group as it is now.
void TableLogStore::add_changes(GroupId group, const Log& log, TableBatch& batch) {
  const auto erase = [&](LogIndex first, LogIndex last) {
    if (first <= last) batch.erased.push_back({table::entry_key(group, first), table::entry_key(group, last.next())});
  };
  erase(log.stored_first, std::min(log.stored_last, log.start.index));
  erase(std::max({log.stored_first, log.start.index.next(), log.clean_last().next()}), log.stored_last);
  batch.puts.emplace_back(table::group_key(group), table::encode_group(group, {log.hard_state, log.start}));
  for (const Entry& entry : log.unsynced) {
    batch.puts.emplace_back(table::entry_key(group, entry.index), table::encode_entry(group, entry, packer_));
  }
}

Status TableLogStore::sync() {
  UCCP_RETURN_IF_ERROR(usable());
  if (changed_.empty() && removed_.empty()) return {};
  TableBatch batch;
  for (const GroupId group : removed_) {
    batch.erased.push_back({table::group_key(group), table::group_key(group) + '\0'});
    batch.erased.push_back({table::entry_key(group, LogIndex()), table::entry_key(group, LogIndex(UINT64_MAX))});
  }
  for (const GroupId group : changed_) add_changes(group, logs_[group], batch);
  ++sync_count_;
  if (Status committed = table_->commit(batch); !committed.is_ok()) {
    const bool unchanged = committed.code() == Code::kExhausted;
    return unchanged ? committed : fail_for_good(std::move(committed));
  }
  for (const GroupId group : changed_) {
    Log& log = logs_[group];
    log.unsynced.clear();
    log.stored_first = log.start.index.next();
    log.stored_last = log.last;
    log.stored_row = true;
  }
  changed_.clear();
  removed_.clear();
  unsynced_bytes_ = 0;
  return {};
}

Result<std::vector<Entry>> TableLogStore::read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) {
  UCCP_TRY(const GroupLog known, load(group));
  UCCP_RETURN_IF_ERROR(check_read(group, known.start.index, known.last.index, from, to));
  std::vector<Entry> entries;
  if (from == to) return entries;
  const Log& log = logs_[group];
  uint64_t bytes = 0;
  const auto take = [&](Entry entry) {
    bytes += entry.data.size();
    if (bytes > bytes_max && !entries.empty()) return false;
    entries.push_back(std::move(entry));
    return true;
  };
  const LogIndex stored_end = std::min(to, log.clean_last().next());
  LogIndex next = from;
  bool full = false;
  if (next < stored_end) {
    UCCP_RETURN_IF_ERROR(
        table_->scan(table::entry_key(group, next), table::entry_key(group, stored_end), [&](auto key, auto value) {
          auto entry = table::parse_entry(group, next, value);
          if (key != table::entry_key(group, next) || !entry || entry->term != log.term_at(next)) return false;
          full = !take(std::move(*entry));
          if (!full) next = next.next();
          return !full;
        }));
    if (!full && next < stored_end) {
      return fail(fail_for_good(damaged(fmt::format("entry {} of group {}", next.value, group.value))));
    }
  }
  const auto unsynced = std::ranges::lower_bound(log.unsynced, next, {}, &Entry::index);
  for (auto it = unsynced; !full && it != log.unsynced.end() && it->index < to; ++it) full = !take(*it);
  return entries;
}

Result<Term> TableLogStore::term(GroupId group, LogIndex index) {
  UCCP_TRY(const GroupLog known, load(group));
  UCCP_RETURN_IF_ERROR(check_term(group, known.start.index, known.last.index, index));
  const auto it = logs_.find(group);
  return it == logs_.end() ? known.start.term : it->second.term_at(index);
}

uint64_t TableLogStore::size_bytes() { return table_->size_bytes() + unsynced_bytes_; }

Status TableLogStore::close() {
  UCCP_RETURN_IF_ERROR(sync());
  failure_ = Status(Code::kUnavailable, "LOG_STORE_CLOSED", "it was closed");
  return {};
}

}  // namespace uccp::storage
