// Lists: one grammar for filters, order, pages and label selectors of all methods that list.
//
// Everything works on serialized items by their plan. A list is walked in the order of its keys (keyset paging: a page
// token holds the last key, never an offset), or, when `orderBy` asks for another order, by the sort values in front of
// the key. Only fields marked `filterable` may be filtered and only `sortable` ones sorted by. Immutable after
// compilation; usable from any thread. docs/lists.md describes the grammar.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "call/listing_filter.h"
#include "call/method.h"
#include "call/wire.h"
#include "machine/envelope.h"

namespace uccp::call {

// Rows that one call visits for one page in key order; then it answers a token, perhaps with a short page.
inline constexpr size_t kListScanRowsMax = 50'000;
// Rows that match, when an order other than that of the keys is asked for; and rows visited to count all matches, which
// a total stops at.
inline constexpr size_t kListSortRowsMax = 10'000;
inline constexpr size_t kListCountRowsMax = 200'000;
// Bytes of items in one page: below the limit of a message, with room for the rest of the response.
inline constexpr size_t kListPageBytesMax = 3u << 20;
inline constexpr int64_t kPageTokenTtlMs = 3600 * 1000;
inline constexpr size_t kSortKeysMax = 8;

// Signs page tokens with a key of the cluster, so that a token of one node is good on every other, and none can be
// made up. HMAC-SHA256 (RFC 2104).
class PageTokenSigner {
 public:
  explicit PageTokenSigner(std::string key) : key_(std::move(key)) {}

  struct Token {
    machine::Scope scope;
    uint64_t query_hash = 0;
    int64_t issued_ms = 0;
    std::string position;  // of the last row answered
  };
  std::string seal(const Token& token) const;
  // Errors: invalid PAGE_TOKEN_INVALID.
  Result<Token> open(std::string_view text) const;

 private:
  std::string key_;
};
// 32 raw bytes.
std::string hmac_sha256(std::string_view key, std::string_view data);

// "createTime desc, name" as a function from an item to bytes that sort like the items do.
class SortOrder {
 public:
  SortOrder() = default;
  // Errors: invalid ORDER_BY_INVALID, naming the sortable fields.
  static Result<SortOrder> compile(const MessagePlan& item, std::string_view text);

  // True: the order of the keys.
  bool empty() const { return keys_.empty(); }
  // No result is the prefix of another one, so a key can follow.
  std::string position(std::string_view item) const;

 private:
  struct Key {
    FieldPath path;
    bool descending = false;
  };
  std::vector<Key> keys_;
};

// What a list is compiled for.
struct ListOptions {
  const PageTokenSigner* signer = nullptr;
  WallTime now;
  machine::Scope scope;
  // The `orderBy` that the keys of the rows have, beside the empty one: "createTime".
  std::string_view key_order;
};

// A validated list request of any method with paging.
struct ListQuery {
  const Method* method = nullptr;
  uint32_t page_size = 0;
  Filter filter;
  SortOrder order;
  FieldTree fields;
  bool project = false;
  bool count_total = false;
  uint64_t hash = 0;  // of everything that must stay the same between the pages
  machine::Scope scope;
  std::string after;  // position behind which the page begins; empty: the first page
  uint32_t skip = 0;  // matches from the beginning that the page leaves out; never together with `after`
  const PageTokenSigner* signer = nullptr;
  WallTime now;

  bool matches(std::string_view item) const { return filter.matches(item); }
};

// "offset:40" in place of a page token: the page begins behind so many matches.
inline constexpr std::string_view kOffsetPrefix = "offset:";
// Requires method.paging and method.items, and a request that passed validate(). Errors: invalid FILTER_INVALID,
// ORDER_BY_INVALID, PAGE_TOKEN_INVALID (malformed, too old, of another query, or a number that is too large),
// FIELD_INVALID.
Result<ListQuery> compile_list(const Method& method, std::string_view request, const ListOptions& options);

// Visits rows whose key is > `after` (or all if it is empty) in key order until `visit` returns false. `item` is the
// serialized public message.
using VisitRow = std::function<bool(std::string_view key, std::string_view item)>;
using ScanRows = std::function<void(std::string_view after, const VisitRow& visit)>;

struct Page {
  std::vector<std::string> items;
  std::string next_page_token;
  int64_t total = 0;  // only if the query counts
};
// Fills one page. Errors: invalid LIST_TOO_LARGE if more than kListSortRowsMax rows would have to be sorted, or more
// than kListScanRowsMax looked at before the page begins.
Result<Page> paginate(const ListQuery& query, const ScanRows& scan);
// The response message of the method: items, `next_page_token` and `total_size`, as far as the response has them.
std::string encode_page(const Method& method, const Page& page);

// "k=v, k2!=v2, k3, !k4, k5 in (a|b), k6 notin (a,b)": terms joined by commas, all of which must hold.
class LabelSelector {
 public:
  LabelSelector() = default;
  // `field` is the path used in errors. Errors: invalid SELECTOR_INVALID with the position.
  static Result<LabelSelector> compile(std::string_view text, std::string_view field = "labels");

  bool empty() const { return terms_.empty(); }
  // `labels_field` is the number of a map<string, string> field of the message.
  bool matches(std::string_view message, uint32_t labels_field) const;
  bool matches(const std::map<std::string, std::string>& labels) const;

 private:
  struct Term {
    enum class Kind : uint8_t { kExists, kAbsent, kIn, kNotIn };
    Kind kind = Kind::kExists;
    std::string key;
    std::vector<std::string> values;
  };
  static bool holds(const Term& term, const std::string_view* value);
  std::vector<Term> terms_;
};

}  // namespace uccp::call
