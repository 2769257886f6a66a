// The changes of one command to a key-value store. All of them have one revision; if nothing changes, none is used.
//
// Invariants: a key changes at most once in a revision; the head counts exactly the rows there are. The first error
// ends the command, and the machine undoes what it wrote. Loop thread, inside apply.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/domain.h"
#include "services/kv/creation_order.h"
#include "services/kv/kv_rows.h"
#include "uccp/internal/v1/kv_state.pb.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// Most keys that one command deletes, and most keys of one lease: what is more would hold up the loop for long.
inline constexpr uint64_t kChangedKeysMax = 50'000;
// What is counted for the key of a row in the log of revisions.
inline constexpr size_t kRevisionRowBytes = 12;

class StoreWriter {
 public:
  StoreWriter(machine::ApplyContext& context, CreationOrder& order);
  // Unless it was finished the machine undoes everything, and so does this with the order.
  ~StoreWriter();
  StoreWriter(const StoreWriter&) = delete;
  StoreWriter& operator=(const StoreWriter&) = delete;

  // Answers the row before, if there was one. Errors: not_found KEY_NOT_FOUND, LEASE_NOT_FOUND; conflict ETAG_MISMATCH;
  // exhausted KV_BYTES_EXHAUSTED, KV_KEYS_EXHAUSTED, LEASE_KEYS_EXHAUSTED; invalid VALUE_PROVIDED, LEASE_PROVIDED.
  Result<std::optional<std::string>> put(const v1::PutRequest& request, const internal::v1::KvLimits& limits);
  // Deletes all keys of the range and answers them with their rows. Errors: exhausted DELETE_TOO_LARGE.
  struct Deleted {
    std::string key;
    std::string row;
  };
  Result<std::vector<Deleted>> erase(const KeyRange& range);
  // Deletes one key whose row the caller has read.
  void erase(std::string_view key, const std::string& row);

  // Errors: conflict ETAG_MISMATCH if the one key of the range has another revision; invalid RANGE_INVALID.
  Status check_match(const KeyRange& range, std::string_view if_match) const;

  // Leases. Errors: already_exists LEASE_EXISTS; exhausted LEASES_EXHAUSTED; not_found LEASE_NOT_FOUND.
  Result<int64_t> grant(int64_t id, int64_t ttl_ms, const internal::v1::KvLimits& limits);
  // Ends a lease with its keys; answers how many.
  Result<uint64_t> revoke(int64_t id);
  // The same when the machine's lease is over already.
  void expire(int64_t id);

  bool changed() const { return number_ > 0; }
  // The head as it would be written now.
  Head& head() { return head_; }
  Head head_now() const;
  // The revision of the changes; the store's if there are none.
  uint64_t revision() const { return changed() ? head_.revision + 1 : head_.revision; }
  // Knows each key as it is now, changes of this command included.
  CreationOrder& order() { return order_; }
  // Writes the head back and tells watchers. Nothing may follow.
  void finish();

 private:
  // Moves the row of a key's newest version to the history.
  void retire(std::string_view key, const Version& version, const std::string& row);
  void log(ChangeKind kind, std::string_view key, uint64_t previous);
  Status attach(int64_t lease, std::string_view key);
  void detach(int64_t lease, std::string_view key);
  uint64_t erase_lease(int64_t id, const LeaseRow& row);

  machine::ApplyContext& c_;
  const machine::Scope scope_;
  const std::string head_key_;
  std::optional<std::string> head_row_;  // as it was
  Head head_;
  uint32_t number_ = 0;  // changes so far
  std::string events_;   // for watchers

  CreationOrder& order_;
  struct Ordered {
    std::string key;
    uint64_t created;
    bool put;  // otherwise erased
  };
  std::vector<Ordered> ordered_;
};

// Errors: invalid RANGE_INVALID: a deletion that names nothing would delete all.
Status check_delete(const v1::DeleteRequest& request);
// The same of a rollback, which is asked before one is logged: those of older logs are applied as they were.
Status check_rollback(const v1::RollbackRequest& request);
Status lease_not_found(int64_t id);
Status key_not_found(std::string_view key);
// A key in a message: quoted if it is text.
std::string shown(std::string_view key);

}  // namespace uccp::kv
