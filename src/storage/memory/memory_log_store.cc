#include "storage/memory/memory_log_store.h"

#include <utility>

#include "storage/log_checks.h"

namespace uccp::storage {

LogPosition MemoryLogStore::Log::last() const {
  return entries.empty() ? start : LogPosition{entries.back().term, entries.back().index};
}

void MemoryLogStore::Log::append(const std::vector<Entry>& added) {
  while (!entries.empty() && entries.back().index >= added.front().index) entries.pop_back();
  entries.insert(entries.end(), added.begin(), added.end());
}

void MemoryLogStore::Log::truncate_before(LogPosition position) {
  if (position.index <= start.index) return;
  if (position.index > last().index || at(position.index).term != position.term) entries.clear();
  while (!entries.empty() && entries.front().index <= position.index) entries.pop_front();
  start = position;
}

void MemoryLogStore::write(Operation operation) {
  operation(current_);
  unsynced_.push_back(std::move(operation));
}

const MemoryLogStore::Log& MemoryLogStore::find(GroupId group) const {
  static const Log empty;
  const auto it = current_.find(group);
  return it == current_.end() ? empty : it->second;
}

std::vector<GroupId> MemoryLogStore::groups() {
  std::vector<GroupId> ids;
  for (const auto& [id, log] : current_) {
    if (log.hard_state != HardState() || log.last() != LogPosition()) ids.push_back(id);
  }
  return ids;
}

Result<GroupLog> MemoryLogStore::load(GroupId group) {
  const Log& log = find(group);
  return GroupLog{log.hard_state, log.start, log.last()};
}

Status MemoryLogStore::append(GroupId group, std::span<const Entry> entries) {
  if (entries.empty()) return {};
  const Log& log = find(group);
  UCCP_RETURN_IF_ERROR(check_append(group, log.start.index, log.last().index, entries));
  write([group, added = std::vector<Entry>(entries.begin(), entries.end())](Logs& logs) { logs[group].append(added); });
  return {};
}

Status MemoryLogStore::set_hard_state(GroupId group, const HardState& state) {
  write([group, state](Logs& logs) { logs[group].hard_state = state; });
  return {};
}

Status MemoryLogStore::sync() {
  if (unsynced_.empty()) return {};
  for (const Operation& operation : unsynced_) operation(synced_);
  unsynced_.clear();
  ++sync_count_;
  return {};
}

Result<std::vector<Entry>> MemoryLogStore::read(GroupId group, LogIndex from, LogIndex to, uint64_t bytes_max) {
  const Log& log = find(group);
  UCCP_RETURN_IF_ERROR(check_read(group, log.start.index, log.last().index, from, to));
  std::vector<Entry> entries;
  uint64_t bytes = 0;
  for (; from < to; from = from.next()) {
    const Entry& entry = log.at(from);
    bytes += entry.data.size();
    if (bytes > bytes_max && !entries.empty()) break;
    entries.push_back(entry);
  }
  return entries;
}

Result<Term> MemoryLogStore::term(GroupId group, LogIndex index) {
  const Log& log = find(group);
  UCCP_RETURN_IF_ERROR(check_term(group, log.start.index, log.last().index, index));
  return index == log.start.index ? log.start.term : log.at(index).term;
}

Status MemoryLogStore::truncate_before(GroupId group, LogPosition position) {
  if (position.index <= find(group).start.index) return {};
  write([group, position](Logs& logs) { logs[group].truncate_before(position); });
  return {};
}

Status MemoryLogStore::remove(GroupId group) {
  write([group](Logs& logs) { logs.erase(group); });
  return {};
}

uint64_t MemoryLogStore::size_bytes() {
  uint64_t bytes = 0;
  for (const auto& [id, log] : current_) {
    for (const Entry& entry : log.entries) bytes += sizeof(Entry) + entry.data.size();
  }
  return bytes;
}

void MemoryLogStore::crash() {
  current_ = synced_;
  unsynced_.clear();
}

}  // namespace uccp::storage
