#include "storage/lmdb/lmdb_log_table.h"

#include <lmdb.h>

#include <cerrno>
#include <utility>

namespace uccp::storage {
namespace {

constexpr mdb_mode_t kFileMode = 0600;

// LMDB takes keys and values as pointers that it does not write to.
MDB_val value_of(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }
std::string_view view_of(const MDB_val& value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

Status to_status(int code, const std::string& directory, std::string_view doing) {
  if (code == MDB_SUCCESS) return {};
  const std::string message = std::string(doing) + " the log in " + directory + ": " + mdb_strerror(code);
  switch (code) {
    case ENOSPC:
    case MDB_MAP_FULL: return Status(Code::kExhausted, "NO_SPACE", message + ". Nothing was written; free disk space");
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_PANIC:
    case MDB_BAD_VALSIZE:
      return Status(Code::kCorruption, "LOG_DAMAGED",
                    message +
                        ". Remove the node from the cluster, clear its data directory and add it again; on a "
                        "single node restore a backup");
    default: return Status(Code::kUnavailable, "IO_ERROR", message);
  }
}

class Transaction {
 public:
  Transaction(MDB_env* environment, unsigned flags) : code_(mdb_txn_begin(environment, nullptr, flags, &txn_)) {}
  ~Transaction() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  int begun() const { return code_; }
  MDB_txn* get() const { return txn_; }
  int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }

 private:
  MDB_txn* txn_ = nullptr;
  const int code_;
};

class Cursor {
 public:
  Cursor(MDB_txn* txn, MDB_dbi table) : code_(mdb_cursor_open(txn, table, &cursor_)) {}
  ~Cursor() {
    if (cursor_ != nullptr) mdb_cursor_close(cursor_);
  }
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  int opened() const { return code_; }
  MDB_cursor* get() const { return cursor_; }

 private:
  MDB_cursor* cursor_ = nullptr;
  const int code_;
};

int erase_range(MDB_txn* txn, MDB_dbi table, const TableBatch::Range& range) {
  Cursor cursor(txn, table);
  if (cursor.opened() != MDB_SUCCESS) return cursor.opened();
  MDB_val key = value_of(range.from);
  MDB_val value;
  int code = mdb_cursor_get(cursor.get(), &key, &value, MDB_SET_RANGE);
  while (code == MDB_SUCCESS && view_of(key) < range.to) {
    if (const int erased = mdb_cursor_del(cursor.get(), 0); erased != MDB_SUCCESS) return erased;
    code = mdb_cursor_get(cursor.get(), &key, &value, MDB_NEXT);
  }
  return code == MDB_NOTFOUND ? MDB_SUCCESS : code;
}

int fill(MDB_txn* txn, MDB_dbi table, const TableBatch& batch) {
  for (const auto& range : batch.erased) {
    if (const int code = erase_range(txn, table, range); code != MDB_SUCCESS) return code;
  }
  for (const auto& [key, value] : batch.puts) {
    MDB_val k = value_of(key);
    MDB_val v = value_of(value);
    if (const int code = mdb_put(txn, table, &k, &v, 0); code != MDB_SUCCESS) return code;
  }
  return MDB_SUCCESS;
}

}  // namespace

class LmdbLogTable::Environment {
 public:
  ~Environment() {
    if (env != nullptr) mdb_env_close(env);
  }
  std::string directory;
  MDB_env* env = nullptr;
  MDB_dbi table = 0;
};

LmdbLogTable::LmdbLogTable(std::unique_ptr<Environment> environment) : environment_(std::move(environment)) {}
LmdbLogTable::~LmdbLogTable() = default;

Result<std::unique_ptr<LmdbLogTable>> LmdbLogTable::open(const std::string& directory, const Options& options) {
  auto opened = std::make_unique<Environment>();
  opened->directory = directory;
  int code = mdb_env_create(&opened->env);
  if (code == MDB_SUCCESS) code = mdb_env_set_mapsize(opened->env, options.map_bytes);
  // The data directory has a lock of its own, and there is one thread: LMDB needs no table of readers.
  if (code == MDB_SUCCESS) code = mdb_env_open(opened->env, directory.c_str(), MDB_NOLOCK | MDB_NOTLS, kFileMode);
  UCCP_RETURN_IF_ERROR(to_status(code, directory, "opening"));
  {
    Transaction txn(opened->env, 0);
    code = txn.begun();
    if (code == MDB_SUCCESS) code = mdb_dbi_open(txn.get(), nullptr, 0, &opened->table);
    if (code == MDB_SUCCESS) code = txn.commit();
  }
  UCCP_RETURN_IF_ERROR(to_status(code, directory, "opening"));
  return std::unique_ptr<LmdbLogTable>(new LmdbLogTable(std::move(opened)));
}

Status LmdbLogTable::commit(const TableBatch& batch) {
  Transaction txn(environment_->env, 0);
  int code = txn.begun();
  if (code == MDB_SUCCESS) code = fill(txn.get(), environment_->table, batch);
  // A commit that fails leaves the table as it was.
  if (code == MDB_SUCCESS) code = txn.commit();
  return to_status(code, environment_->directory, "writing to");
}

Status LmdbLogTable::scan(std::string_view from, std::string_view to, const Row& row) {
  Transaction txn(environment_->env, MDB_RDONLY);
  UCCP_RETURN_IF_ERROR(to_status(txn.begun(), environment_->directory, "reading"));
  Cursor cursor(txn.get(), environment_->table);
  int code = cursor.opened();
  MDB_val key = value_of(from);
  MDB_val value;
  // LMDB has no empty keys.
  if (code == MDB_SUCCESS) code = mdb_cursor_get(cursor.get(), &key, &value, from.empty() ? MDB_FIRST : MDB_SET_RANGE);
  while (code == MDB_SUCCESS && view_of(key) < to) {
    if (!row(view_of(key), view_of(value))) return {};
    code = mdb_cursor_get(cursor.get(), &key, &value, MDB_NEXT);
  }
  return to_status(code == MDB_NOTFOUND ? MDB_SUCCESS : code, environment_->directory, "reading");
}

uint64_t LmdbLogTable::size_bytes() {
  MDB_envinfo info;
  MDB_stat stat;
  if (mdb_env_info(environment_->env, &info) != MDB_SUCCESS || mdb_env_stat(environment_->env, &stat) != MDB_SUCCESS) {
    return 0;
  }
  return (info.me_last_pgno + 1) * stat.ms_psize;
}

}  // namespace uccp::storage
