// Reading the key-value store: one key or a range, at any revision that is kept. Pure; the same code answers ranges of
// a transaction, with the writes of the transaction, and those of a view.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "machine/key_reader.h"
#include "services/kv/creation_order.h"
#include "services/kv/kv_rows.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

// Bytes of pairs in one answer: below the limit of a message, with room for the rest.
inline constexpr size_t kRangeBytesMax = 3u << 20;

// Requires: decode_version(row) of the same string. Field numbers of uccp.v1.KeyValuePair.
enum class PairForm : uint8_t { kWhole, kKeyOnly };
void append_pair(std::string& out, uint32_t field, std::string_view key, const Version& version,
                 PairForm form = PairForm::kWhole);
std::string encode_pair(std::string_view key, const Version& version);

// The row of the version that the key had at revision `at`; nullopt if it did not exist. `current` is the revision of
// the store. Requires compacted <= at <= current.
std::optional<std::string> version_at(const machine::KeyReader& state, const machine::Scope& scope,
                                      std::string_view key, uint64_t at, uint64_t current);
// Visits the keys of the range that existed at revision `at`, in their order, until `visit` returns false.
using VisitVersion = std::function<bool(std::string_view key, std::string_view row)>;
void scan_versions(const machine::KeyReader& state, const machine::Scope& scope, const KeyRange& range, uint64_t at,
                   uint64_t current, const VisitVersion& visit);

// The revision to read at: `asked`, or the newest if that is 0. Errors: failed_precondition REVISION_COMPACTED, invalid
// REVISION_FUTURE.
Result<uint64_t> revision_to_read(const Head& head, int64_t asked);

// One Range, in steps, so that a long one lets other work in between.
class RangeRun {
 public:
  // `head`: of the state that will be read. Errors: invalid RANGE_INVALID; as revision_to_read().
  static Result<RangeRun> make(const v1::RangeRequest& request, const machine::Scope& scope, const Head& head);

  // Looks at about `keys_max` more keys of the same state; true: at the end. Errors: exhausted RANGE_TOO_LARGE if the
  // pairs would have to be sorted and are too many.
  Result<bool> step(const machine::KeyReader& state, size_t keys_max);
  // For a question that CreationOrder can answer: the prefix whose keys it asks for in the order of their creation,
  // only few of them. Empty: it is another question.
  std::string_view created_below() const;
  // Instead of step(), with the keys that there are.
  void take_in_order(const machine::KeyReader& state, const CreationOrder::Keys& keys);
  // As step(), and collects what answers further such questions; nullopt if that should not be kept.
  Result<bool> step_and_learn(const machine::KeyReader& state, size_t keys_max,
                              std::optional<CreationOrder::Keys>& keys);
  // A serialized RangeResponse. Requires that step() said true.
  std::string answer();

  // One key, or few of a kind that is read in order: no need for steps.
  bool is_short() const { return range_.single || (limit_ > 0 && limit_ <= 32 && !sorted_ && !filtered_ && !counts_); }

 private:
  struct Kept {
    std::string key;
    std::string row;
  };

  bool matches(const Version& version) const;
  bool before(const Kept& a, const Kept& b) const;
  void learn(std::string_view key, std::string_view row);
  // False: no more is wanted.
  bool take(std::string_view key, std::string_view row);
  bool keep(std::string_view key, std::string_view row, const Version& version);

  machine::Scope scope_;
  KeyRange range_;  // what is left
  uint64_t at_ = 0;
  uint64_t current_ = 0;
  uint64_t limit_ = 0;
  v1::KeyOrder order_ = v1::KEY_ORDER_KEY;
  bool descending_ = false;
  bool keys_only_ = false;
  bool count_only_ = false;
  bool count_total_ = false;
  bool sorted_ = false;  // otherwise than the keys are
  bool filtered_ = false;
  bool counts_ = false;  // visits keys that are not answered
  uint64_t min_mod_ = 0, max_mod_ = UINT64_MAX, min_create_ = 0, max_create_ = UINT64_MAX;

  std::string pairs_;       // those in key order, encoded
  std::vector<Kept> kept_;  // those to be sorted; a heap with the last one in front once there are `limit_`
  size_t kept_bytes_ = 0;
  uint64_t matched_ = 0;
  uint64_t count_ = 0;
  bool more_ = false;
  bool too_large_ = false;
  std::optional<CreationOrder::Keys>* learned_ = nullptr;
  std::string next_key_;
};

}  // namespace uccp::kv
