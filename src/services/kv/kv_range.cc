#include "services/kv/kv_range.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "call/wire.h"

namespace uccp::kv {
namespace {

using machine::KeyReader;
using machine::Scope;
using Pair = v1::KeyValuePair;
using Response = v1::RangeResponse;

// Rows that are read from the history at once.
constexpr size_t kHistoryRowsPerRead = 256;

std::string after(std::string_view key) { return std::string(key) + '\0'; }

// Where the rows of the keys in `range` begin and end.
std::string keys_begin(const Scope& scope, const KeyRange& range) { return key_key(scope, range.from); }
std::string keys_end(const Scope& scope, const KeyRange& range) {
  if (range.single) return key_key(scope, after(range.from));
  if (range.to.empty()) return machine::prefix_end(machine::table_key::scope_prefix(kKeyTable, scope));
  return key_key(scope, range.to);
}
std::string history_begin(const Scope& scope, std::string_view key) { return history_key(scope, key, UINT64_MAX); }
std::string history_end(const Scope& scope, const KeyRange& range) {
  if (range.single) return history_begin(scope, after(range.from));
  if (range.to.empty()) return machine::prefix_end(machine::table_key::scope_prefix(kHistoryTable, scope));
  return history_begin(scope, range.to);
}

// Goes through the keys of the history in order; of each, the newest row that is not newer than `at`.
class HistoryCursor {
 public:
  HistoryCursor(const KeyReader& state, const Scope& scope, const KeyRange& range, uint64_t at)
      : state_(state),
        prefix_size_(machine::table_key::scope_prefix(kHistoryTable, scope).size()),
        from_(history_begin(scope, range.from)),
        end_(history_end(scope, range)),
        at_(at) {
    read();
  }

  bool valid() const { return next_ < found_.size(); }
  const std::string& key() const { return found_[next_].first; }
  const std::string& row() const { return found_[next_].second; }
  void next() {
    if (++next_ == found_.size()) read();
  }

 private:
  void read() {
    found_.clear();
    next_ = 0;
    while (!from_.empty() && found_.empty()) {
      size_t rows = 0;
      std::string go_on;
      state_.scan(from_, end_, [&](std::string_view full, std::string_view row) {
        if (rows++ == kHistoryRowsPerRead) {
          go_on = full;
          return false;
        }
        ByteReader in(full.substr(prefix_size_));
        std::string key = in.key_part();
        const uint64_t revision = ~in.u64();
        if (revision > at_ || key == last_) return true;
        last_ = key;
        found_.emplace_back(std::move(key), std::string(row));
        return true;
      });
      from_ = std::move(go_on);
    }
  }

  const KeyReader& state_;
  const size_t prefix_size_;
  std::string from_;  // empty: all was read
  const std::string end_;
  const uint64_t at_;
  std::vector<std::pair<std::string, std::string>> found_;
  size_t next_ = 0;
  std::string last_;
};

}  // namespace

namespace {

void put_pair(std::string& out, std::string_view key, const Version& v, PairForm form) {
  call::put_bytes(out, Pair::kKeyFieldNumber, key);
  if (form == PairForm::kWhole && !v.value.empty()) call::put_bytes(out, Pair::kValueFieldNumber, v.value);
  call::put_uint(out, Pair::kCreateRevisionFieldNumber, v.create);
  call::put_uint(out, Pair::kModRevisionFieldNumber, v.mod);
  call::put_uint(out, Pair::kVersionFieldNumber, v.version);
  if (v.lease != 0) call::put_uint(out, Pair::kLeaseFieldNumber, static_cast<uint64_t>(v.lease));
}

}  // namespace

void append_pair(std::string& out, uint32_t field, std::string_view key, const Version& version, PairForm form) {
  const size_t mark = call::begin_bytes(out, field);
  put_pair(out, key, version, form);
  call::end_bytes(out, mark);
}

std::string encode_pair(std::string_view key, const Version& version) {
  std::string out;
  out.reserve(key.size() + version.value.size() + 32);
  put_pair(out, key, version, PairForm::kWhole);
  return out;
}

std::optional<std::string> version_at(const KeyReader& state, const Scope& scope, std::string_view key, uint64_t at,
                                      uint64_t current) {
  auto newest = state.get(key_key(scope, key));
  if (newest && decode_version(*newest)->mod <= at) return newest;
  if (at >= current) return std::nullopt;
  std::optional<std::string> found;
  state.scan(history_key(scope, key, at), history_begin(scope, after(key)),
             [&](std::string_view, std::string_view row) {
               found = row;
               return false;
             });
  if (found && !decode_version(*found)) found.reset();
  return found;
}

void scan_versions(const KeyReader& state, const Scope& scope, const KeyRange& range, uint64_t at, uint64_t current,
                   const VisitVersion& visit) {
  if (range.empty()) return;
  const size_t prefix = machine::table_key::scope_prefix(kKeyTable, scope).size();
  if (at >= current) {
    return state.scan(keys_begin(scope, range), keys_end(scope, range),
                      [&](std::string_view key, std::string_view row) { return visit(key.substr(prefix), row); });
  }
  HistoryCursor history(state, scope, range, at);
  bool go_on = true;
  const auto visit_old = [&] {
    if (decode_version(history.row())) go_on = visit(history.key(), history.row());
    history.next();
  };
  state.scan(keys_begin(scope, range), keys_end(scope, range), [&](std::string_view full, std::string_view row) {
    const std::string_view key = full.substr(prefix);
    while (go_on && history.valid() && history.key() < key) visit_old();
    if (!go_on) return false;
    const bool has_old = history.valid() && history.key() == key;
    if (decode_version(row)->mod <= at) {
      if (has_old) history.next();
      go_on = visit(key, row);
    } else if (has_old) {
      visit_old();
    }
    return go_on;
  });
  while (go_on && history.valid()) visit_old();
}

Result<uint64_t> revision_to_read(const Head& head, int64_t asked) {
  if (asked <= 0) return head.revision;
  const auto at = static_cast<uint64_t>(asked);
  if (at > head.revision) {
    return fail(Status(Code::kInvalid, "REVISION_FUTURE",
                       "the revision " + std::to_string(at) + " has not been reached; the newest is " +
                           std::to_string(head.revision))
                    .with_field("revision", "has not been reached", std::to_string(head.revision)));
  }
  if (at < head.compacted) {
    return fail(Code::kFailedPrecondition, "REVISION_COMPACTED",
                "the revision " + std::to_string(at) + " is compacted; the oldest that can be read is " +
                    std::to_string(head.compacted));
  }
  return at;
}

Result<RangeRun> RangeRun::make(const v1::RangeRequest& request, const Scope& scope, const Head& head) {
  RangeRun run;
  run.scope_ = scope;
  UCCP_TRY(run.range_, range_of(request));
  UCCP_TRY(run.at_, revision_to_read(head, request.revision()));
  run.current_ = head.revision;
  run.limit_ = static_cast<uint64_t>(request.limit());
  if (request.order_by() != v1::KEY_ORDER_UNSPECIFIED) run.order_ = request.order_by();
  run.descending_ = request.descending();
  run.keys_only_ = request.keys_only();
  run.count_only_ = request.count_only();
  run.count_total_ = request.count_total();
  run.counts_ = run.count_only_ || run.count_total_;
  run.sorted_ = !run.count_only_ && (run.order_ != v1::KEY_ORDER_KEY || run.descending_) && !run.range_.single;
  const auto bound = [](int64_t value, uint64_t none) { return value > 0 ? static_cast<uint64_t>(value) : none; };
  run.min_mod_ = bound(request.min_mod_revision(), 0);
  run.max_mod_ = bound(request.max_mod_revision(), UINT64_MAX);
  run.min_create_ = bound(request.min_create_revision(), 0);
  run.max_create_ = bound(request.max_create_revision(), UINT64_MAX);
  run.filtered_ = request.min_mod_revision() > 0 || request.max_mod_revision() > 0 ||
                  request.min_create_revision() > 0 || request.max_create_revision() > 0;
  return run;
}

bool RangeRun::matches(const Version& v) const {
  return !filtered_ || (v.mod >= min_mod_ && v.mod <= max_mod_ && v.create >= min_create_ && v.create <= max_create_);
}

// `a` comes before `b` in the answer. Equal ones are in the order of keys.
bool RangeRun::before(const Kept& a, const Kept& b) const {
  const Version x = *decode_version(a.row), y = *decode_version(b.row);
  int order = 0;
  const auto compare = [](const auto& left, const auto& right) { return left < right ? -1 : left > right ? 1 : 0; };
  switch (order_) {
    case v1::KEY_ORDER_VERSION: order = compare(x.version, y.version); break;
    case v1::KEY_ORDER_CREATE_REVISION: order = compare(x.create, y.create); break;
    case v1::KEY_ORDER_MOD_REVISION: order = compare(x.mod, y.mod); break;
    case v1::KEY_ORDER_VALUE: order = compare(x.value, y.value); break;
    default: order = compare(a.key, b.key); break;
  }
  if (order != 0) return descending_ ? order > 0 : order < 0;
  return a.key < b.key;
}

bool RangeRun::keep(std::string_view key, std::string_view row, const Version& version) {
  const auto comes_before = [this](const Kept& a, const Kept& b) { return before(a, b); };
  Kept kept{std::string(key), std::string()};
  // Values that are neither answered nor sorted by need not be held.
  const bool value_wanted = !keys_only_ || order_ == v1::KEY_ORDER_VALUE;
  Version slim = version;
  if (!value_wanted) slim.value = {};
  kept.row = value_wanted ? std::string(row) : encode_version(slim);
  kept_bytes_ += kept.key.size() + kept.row.size();
  kept_.push_back(std::move(kept));
  if (limit_ > 0 && kept_.size() >= limit_) {
    if (kept_.size() == limit_) {
      std::ranges::make_heap(kept_, comes_before);
    } else {
      std::ranges::push_heap(kept_, comes_before);
      std::ranges::pop_heap(kept_, comes_before);
      kept_bytes_ -= kept_.back().key.size() + kept_.back().row.size();
      kept_.pop_back();
    }
  }
  too_large_ = kept_bytes_ > kRangeBytesMax;
  return !too_large_;
}

bool RangeRun::take(std::string_view key, std::string_view row) {
  ++count_;
  if (count_only_) return true;
  const Version version = *decode_version(row);
  if (!matches(version)) return true;
  ++matched_;
  if (sorted_) return keep(key, row, version);
  if (more_) return true;
  const bool full =
      (limit_ > 0 && matched_ > limit_) || (matched_ > 1 && pairs_.size() + key.size() + row.size() > kRangeBytesMax);
  if (full) {
    more_ = true;
    next_key_ = key;
    return counts_;
  }
  append_pair(pairs_, Response::kPairsFieldNumber, key, version, keys_only_ ? PairForm::kKeyOnly : PairForm::kWhole);
  return true;
}

Result<bool> RangeRun::step(const KeyReader& state, size_t keys_max) {
  if (range_.single) {
    if (const auto row = version_at(state, scope_, range_.from, at_, current_)) take(range_.from, *row);
    return true;
  }
  size_t keys = 0;
  bool whole = true;
  std::string position;
  scan_versions(state, scope_, range_, at_, current_, [&](std::string_view key, std::string_view row) {
    if (keys++ == keys_max) {
      position = key;
      whole = false;
      return false;
    }
    if (learned_ != nullptr) learn(key, row);
    return take(key, row);
  });
  if (too_large_) {
    return fail(Code::kExhausted, "RANGE_TOO_LARGE",
                "the pairs to be sorted have more than " + std::to_string(kRangeBytesMax >> 20) +
                    " MiB; name a limit, ask for keys only, or sort by key");
  }
  if (!whole) range_.from = std::move(position);
  return whole;
}

// The most that are answered from memory: with rows as large as CreationOrder keeps, a scan sorts as many.
constexpr uint64_t kInOrderMax = 16;

std::string_view RangeRun::created_below() const {
  const bool asked = sorted_ && order_ == v1::KEY_ORDER_CREATE_REVISION && !counts_ && at_ == current_ && limit_ > 0 &&
                     limit_ <= kInOrderMax && min_mod_ == 0 && max_mod_ == UINT64_MAX;
  const bool whole =
      !range_.single && CreationOrder::takes(range_.from) && range_.to == machine::prefix_end(range_.from);
  return asked && whole ? std::string_view(range_.from) : std::string_view();
}

void RangeRun::take_in_order(const machine::KeyReader& state, const CreationOrder::Keys& keys) {
  count_ = keys.size();
  if (min_create_ > max_create_) return;
  const auto first = keys.lower_bound({min_create_, std::string()});
  const auto end = max_create_ == UINT64_MAX ? keys.end() : keys.lower_bound({max_create_ + 1, std::string()});
  const auto take_key = [&](const std::pair<uint64_t, std::string>& place) {
    const auto row = state.get(key_key(scope_, place.second));
    UCCP_CHECK(row && decode_version(*row)->create == place.first, "the order of creation is that of the state");
    take(place.second, *row);
  };
  if (!descending_) {
    for (auto it = first; it != end && matched_ <= limit_; ++it) take_key(*it);
  }
  // The newest first; those of one revision by key.
  for (auto behind = end; descending_ && behind != first && matched_ <= limit_;) {
    const auto same = keys.lower_bound({std::prev(behind)->first, std::string()});
    for (auto it = same; it != behind && matched_ <= limit_; ++it) take_key(*it);
    behind = same;
  }
  count_ = keys.size();  // take() has counted those it was given
}

void RangeRun::learn(std::string_view key, std::string_view row) {
  if (!*learned_) return;
  (*learned_)->emplace(decode_version(row)->create, key);
  const bool too_much =
      row.size() > CreationOrder::kRowBytesMax || (*learned_)->size() > CreationOrder::kKeysOfPrefixMax;
  if (too_much) learned_->reset();
}

Result<bool> RangeRun::step_and_learn(const machine::KeyReader& state, size_t keys_max,
                                      std::optional<CreationOrder::Keys>& keys) {
  keys.emplace();
  learned_ = &keys;
  auto whole = step(state, keys_max);
  learned_ = nullptr;
  if (!whole || !*whole) keys.reset();
  return whole;
}

std::string RangeRun::answer() {
  if (sorted_) {
    std::ranges::sort(kept_, [this](const Kept& a, const Kept& b) { return before(a, b); });
    for (const Kept& kept : kept_) {
      append_pair(pairs_, Response::kPairsFieldNumber, kept.key, *decode_version(kept.row),
                  keys_only_ ? PairForm::kKeyOnly : PairForm::kWhole);
    }
    more_ = matched_ > kept_.size();
  }
  std::string out = std::move(pairs_);
  call::put_uint(out, Response::kRevisionFieldNumber, current_);
  if (more_) call::put_uint(out, Response::kMoreFieldNumber, 1);
  // A scan that ended early has not seen all keys; a sorted one has.
  if (!more_ || counts_ || sorted_) call::put_uint(out, Response::kCountFieldNumber, count_);
  if (!next_key_.empty()) call::put_bytes(out, Response::kNextKeyFieldNumber, next_key_);
  return out;
}

}  // namespace uccp::kv
