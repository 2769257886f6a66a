// The writes of one batch of commands on the state of one group, with the reads that see them.
//
// A command that is rejected leaves nothing behind: begin() opens it, rollback() undoes it. The digest follows every
// change. Loop thread only.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "machine/key_reader.h"
#include "machine/recent_rows.h"

namespace uccp::machine {

class Transaction final : public KeyReader {
 public:
  using Writes = std::map<std::string, std::optional<std::string>, std::less<>>;

  // `recent`: rows of `base`, as it has them; what is read is added.
  Transaction(const GroupView& base, RecentRows& recent, Digest digest)
      : base_(base), recent_(recent), digest_(digest) {}

  std::optional<std::string> get(std::string_view key) const override;
  void scan(std::string_view from, std::string_view to, const Visit& visit) const override;
  void put(std::string_view key, std::string value);
  void erase(std::string_view key);
  // The same for a caller that knows what the key holds, which saves reading it again; nullopt as `value` erases.
  // Requires: `old` is what get() answers.
  void replace(std::string_view key, std::optional<std::string> old, std::optional<std::string> value);

  // A command's changes are kept by the next begin(), or undone by rollback().
  void begin() { undo_.clear(); }
  void rollback();

  const Digest& digest() const { return digest_; }
  // Every key that was written, with its last value. Ends the transaction.
  Writes take_writes() && { return std::move(writes_); }

 private:
  // Where the key is in writes_, or would be.
  struct Place {
    Writes::iterator at;
    bool written;
  };
  Place find(std::string_view key);
  std::optional<std::string> read(std::string_view key) const;
  void set(Place place, std::string_view key, std::optional<std::string> old_value, std::optional<std::string> value);

  const GroupView& base_;
  RecentRows& recent_;
  Digest digest_;
  Writes writes_;
  struct Undo {
    Writes::iterator at;
    bool was_written;
    std::optional<std::string> old_value;  // as get() saw it
  };
  std::vector<Undo> undo_;
};

}  // namespace uccp::machine
