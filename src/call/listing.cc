// Order, page tokens and pages of lists.
#include "call/listing.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "base/bytes.h"
#include "base/hash.h"
#include "call/json_codec_text.h"
#include "call/validate.h"

namespace uccp::call {
namespace {

constexpr uint8_t kTokenVersion = 1;
constexpr size_t kMacBytes = 32;
// Takes what its clock differs between the nodes that made and read a token.
constexpr int64_t kClockSlackMs = 60'000;

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::unexpected<Status> bad_token(std::string what) {
  return fail(Status(Code::kInvalid, "PAGE_TOKEN_INVALID", "the page token " + what + "; list again without it")
                  .with_field("pageToken", what, "the nextPageToken of the page before"));
}

bool is_sortable(const FieldPlan& field) { return field.sortable; }

// Flips the order of numbers so that their big-endian bytes sort by value.
uint64_t sortable_signed(int64_t value) { return static_cast<uint64_t>(value) ^ (uint64_t{1} << 63); }
uint64_t sortable_real(double value) {
  if (value == 0) value = 0;  // -0 sorts as 0
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits >> 63) != 0 ? ~bits : bits | (uint64_t{1} << 63);
}

double real_of(Kind kind, uint64_t bits) { return to_double(kind, bits); }

void append_sort_value(const FieldPath& path, std::string_view item, ByteWriter& out) {
  const FieldPlan& leaf = path.leaf();
  switch (leaf.kind) {
    case Kind::kString:
    case Kind::kBytes: out.key_part(get_string(path, item).value_or("")); return;
    case Kind::kMessage: {
      // Times; an absent one comes first.
      const auto bytes = get_message(path, item);
      SecondsNanos time;
      if (!bytes || !read_time(*bytes, time)) {
        out.u64(0).u32(0);
        return;
      }
      out.u64(sortable_signed(time.seconds)).u32(static_cast<uint32_t>(time.nanos + 1'000'000'000));
      return;
    }
    case Kind::kFloat:
    case Kind::kDouble: out.u64(sortable_real(real_of(leaf.kind, get_uint(path, item).value_or(0)))); return;
    case Kind::kUint32:
    case Kind::kFixed32:
    case Kind::kUint64:
    case Kind::kFixed64: out.u64(get_uint(path, item).value_or(0)); return;
    case Kind::kSfixed32:
    case Kind::kInt32:
    case Kind::kEnum: out.u64(sortable_signed(static_cast<int32_t>(get_uint(path, item).value_or(0)))); return;
    default: out.u64(sortable_signed(static_cast<int64_t>(get_uint(path, item).value_or(0)))); return;
  }
}

bool has_order(const FieldPlan& field) {
  if (field.shape != Shape::kSingular) return false;
  return field.kind != Kind::kMessage || field.message->well_known == WellKnown::kTimestamp ||
         field.message->well_known == WellKnown::kDuration;
}

}  // namespace

// --- order ----------------------------------------------------------------------------------------------------------

Result<SortOrder> SortOrder::compile(const MessagePlan& item, std::string_view text) {
  SortOrder order;
  const auto wrong = [&](std::string what) {
    what.append(" (fields to sort by: ").append(usable_fields(item, is_sortable)).append(")");
    return fail(Status(Code::kInvalid, "ORDER_BY_INVALID", "the order is not valid: " + what)
                    .with_field("orderBy", std::move(what), "createTime desc")
                    .with_help("lists.md#order"));
  };
  for (std::string_view rest = trim(text); !rest.empty();) {
    const size_t comma = rest.find(',');
    std::string_view term = trim(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    const size_t space = term.find(' ');
    const std::string_view name = term.substr(0, space);
    const std::string_view direction = space == std::string_view::npos ? "asc" : trim(term.substr(space));
    if (name.empty()) return wrong("a sort key is empty");
    if (direction != "asc" && direction != "desc")
      return wrong("after " + excerpt(name) + " only asc or desc may come");
    auto path = FieldPath::compile(item, name);
    if (!path || !path->leaf().sortable || !has_order(path->leaf())) {
      return wrong(excerpt(name) + " is not a field to sort by");
    }
    if (order.keys_.size() >= kSortKeysMax)
      return wrong("there are more than " + std::to_string(kSortKeysMax) + " keys");
    order.keys_.push_back({std::move(*path), direction == "desc"});
  }
  return order;
}

std::string SortOrder::position(std::string_view item) const {
  std::string out;
  for (const Key& key : keys_) {
    ByteWriter part;
    append_sort_value(key.path, item, part);
    std::string bytes = part.take();
    // Every part ends itself, so inverting it inverts its order.
    if (key.descending) std::ranges::transform(bytes, bytes.begin(), [](char c) { return static_cast<char>(~c); });
    out.append(bytes);
  }
  return out;
}

// --- tokens ---------------------------------------------------------------------------------------------------------

std::string hmac_sha256(std::string_view key, std::string_view data) {
  constexpr size_t kBlock = 64;
  std::string block = key.size() > kBlock ? sha256(key) : std::string(key);
  block.resize(kBlock, '\0');
  std::string inner = block;
  std::string outer = block;
  for (size_t i = 0; i < kBlock; ++i) {
    inner[i] = static_cast<char>(inner[i] ^ 0x36);
    outer[i] = static_cast<char>(outer[i] ^ 0x5c);
  }
  return sha256(outer + sha256(inner.append(data)));
}

std::string PageTokenSigner::seal(const Token& token) const {
  ByteWriter out;
  out.u8(kTokenVersion).bytes(token.scope.tenant).bytes(token.scope.name_space).u64(token.query_hash);
  out.u64(static_cast<uint64_t>(token.issued_ms)).bytes(token.position);
  std::string body = out.take();
  return to_base64url(body + hmac_sha256(key_, body));
}

Result<PageTokenSigner::Token> PageTokenSigner::open(std::string_view text) const {
  auto raw = from_base64(text);
  if (!raw || raw->size() <= kMacBytes) return bad_token("is malformed");
  const std::string_view body = std::string_view(*raw).substr(0, raw->size() - kMacBytes);
  const std::string mac = hmac_sha256(key_, body);
  // All bytes are compared, so that the time tells nothing.
  int difference = 0;
  for (size_t i = 0; i < kMacBytes; ++i) difference |= mac[i] ^ (*raw)[body.size() + i];
  if (difference != 0) return bad_token("was not made by this cluster");
  ByteReader in(body);
  Token token;
  const uint8_t version = in.u8();
  token.scope.tenant = in.bytes();
  token.scope.name_space = in.bytes();
  token.query_hash = in.u64();
  token.issued_ms = static_cast<int64_t>(in.u64());
  token.position = in.bytes();
  if (version != kTokenVersion || !in.at_end()) return bad_token("is malformed");
  return token;
}

// --- queries --------------------------------------------------------------------------------------------------------

namespace {

// Hash of the method and the request without the fields that may change between pages.
Result<uint64_t> hash_of_query(const Method& method, std::string_view request) {
  std::string copy(request);
  if (!method.paging->page_token.empty()) set_string(method.paging->page_token, copy, "");
  if (!method.paging->page_size.empty()) set_uint(method.paging->page_size, copy, 0);
  UCCP_TRY(const std::string fixed, canonical(*method.request, copy));
  return hash64(method.full_name + '\n' + fixed);
}

Result<FieldTree> fields_of(const MessagePlan& item, const FieldPath& path, std::string_view request) {
  std::vector<std::string> names;
  if (const auto mask = get_message(path, request)) {
    WireReader reader(*mask);
    WireField field;
    while (reader.next(field)) {
      if (field.number == 1) names.emplace_back(field.bytes);
    }
  }
  auto tree = FieldTree::compile(item, names);
  if (tree) return tree;
  // The parameter is what the caller wrote, not the field of the item.
  const std::string message = tree.error().message();
  return std::unexpected(Status(Code::kInvalid, "FIELD_INVALID", "fields: " + message).with_field("fields", message));
}

Result<uint32_t> offset_of(std::string_view text) {
  const std::string_view number = text.substr(kOffsetPrefix.size());
  uint32_t offset = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), offset);
  if (error != std::errc() || end != number.data() + number.size() || offset > kListSortRowsMax) {
    return bad_token("is no offset:N with N from 0 to " + std::to_string(kListSortRowsMax) +
                     "; go on by nextPageToken");
  }
  return offset;
}

Status too_many_to_skip() {
  return Status(Code::kInvalid, "LIST_TOO_LARGE",
                "more than " + std::to_string(kListScanRowsMax) +
                    " rows lie before the offset; narrow the filter or go on by nextPageToken")
      .with_field("pageToken", "skips too many rows", "")
      .with_help("lists.md#pages");
}

Status check_token(const PageTokenSigner::Token& token, const ListQuery& query) {
  if (token.scope != query.scope || token.query_hash != query.hash) {
    return bad_token("belongs to another query; only pageSize may change between pages").error();
  }
  const int64_t age_ms = query.now.us / 1000 - token.issued_ms;
  if (age_ms > kPageTokenTtlMs || age_ms < -kClockSlackMs) return bad_token("is older than an hour").error();
  return Status::ok();
}

}  // namespace

Result<ListQuery> compile_list(const Method& method, std::string_view request, const ListOptions& options) {
  const PagingRule& paging = *method.paging;
  const MessagePlan& item = *method.items->message;
  ListQuery query;
  query.method = &method;
  query.scope = options.scope;
  query.signer = options.signer;
  query.now = options.now;
  const auto size = static_cast<int32_t>(get_uint(paging.page_size, request).value_or(0));
  query.page_size = size <= 0 ? paging.page_size_default : std::min(static_cast<uint32_t>(size), paging.page_size_max);
  if (!paging.filter.empty()) {
    UCCP_TRY(query.filter, Filter::compile(item, get_string(paging.filter, request).value_or("")));
  }
  if (!paging.order_by.empty()) {
    const std::string_view text = trim(get_string(paging.order_by, request).value_or(""));
    UCCP_TRY(query.order, SortOrder::compile(item, text));
    if (text == options.key_order) query.order = {};
  }
  if (!paging.fields.empty()) {
    UCCP_TRY(query.fields, fields_of(item, paging.fields, request));
    query.project = !query.fields.empty();
  }
  if (const FieldPlan* count = method.request->by_name("count_total"); count != nullptr) {
    UCCP_TRY(const FieldPath path, FieldPath::compile(*method.request, "count_total"));
    query.count_total = get_uint(path, request).value_or(0) != 0;
  }
  UCCP_TRY(query.hash, hash_of_query(method, request));
  const std::string_view text = get_string(paging.page_token, request).value_or("");
  if (text.starts_with(kOffsetPrefix)) {
    UCCP_TRY(query.skip, offset_of(text));
  } else if (!text.empty()) {
    UCCP_TRY(const PageTokenSigner::Token token, query.signer->open(text));
    UCCP_RETURN_IF_ERROR(check_token(token, query));
    query.after = token.position;
  }
  return query;
}

// --- pages ----------------------------------------------------------------------------------------------------------

namespace {

std::string token_behind(const ListQuery& query, std::string_view position) {
  return query.signer->seal({query.scope, query.hash, query.now.us / 1000, std::string(position)});
}

Result<std::string> shown(const ListQuery& query, std::string_view item) {
  if (!query.project) return std::string(item);
  return project(*query.method->items->message, item, query.fields);
}

Result<Page> page_in_key_order(const ListQuery& query, const ScanRows& scan) {
  Page page;
  Status status;
  size_t visited = 0;
  size_t bytes = 0;
  uint32_t skipped = 0;
  std::string last;
  bool full = false;
  const size_t visited_max = query.count_total ? kListCountRowsMax : kListScanRowsMax;
  scan(query.count_total ? std::string_view() : std::string_view(query.after),
       [&](std::string_view key, std::string_view item) {
         if (visited++ == visited_max) {
           full = true;
           return false;
         }
         const bool hit = query.matches(item);
         if (hit && query.count_total) page.total += 1;
         const bool earlier = !query.after.empty() && key <= query.after;
         if (full || earlier) return true;
         if (hit && skipped < query.skip) {
           ++skipped;
           return true;
         }
         if (hit && (page.items.size() == query.page_size || (bytes + item.size() > kListPageBytesMax && bytes > 0))) {
           full = true;
           // A full count goes on behind the page.
           return query.count_total;
         }
         last = key;
         if (!hit) return true;
         auto copy = shown(query, item);
         if (!copy) {
           status = copy.error();
           return false;
         }
         bytes += copy->size();
         page.items.push_back(std::move(*copy));
         return true;
       });
  if (!status.is_ok()) return fail(std::move(status));
  if (full && skipped < query.skip) return fail(too_many_to_skip());
  if (full && !last.empty()) page.next_page_token = token_behind(query, last);
  return page;
}

// Keeps the first rows behind the token only, so that memory does not grow with the table.
Result<Page> page_in_sort_order(const ListQuery& query, const ScanRows& scan) {
  std::map<std::string, std::string> first;
  size_t matched = 0;
  size_t visited = 0;
  bool more = false;
  bool too_large = false;
  scan({}, [&](std::string_view key, std::string_view item) {
    too_large = visited++ == kListScanRowsMax || (matched == kListSortRowsMax && query.matches(item));
    if (too_large) return false;
    if (!query.matches(item)) return true;
    ++matched;
    std::string position = query.order.position(item).append(key);
    if (!query.after.empty() && position <= query.after) return true;
    const bool whole = first.size() == query.skip + query.page_size;
    if (whole && position > first.rbegin()->first) {
      more = true;
      return true;
    }
    if (whole) {
      first.erase(std::prev(first.end()));
      more = true;
    }
    first.emplace(std::move(position), item);
    return true;
  });
  if (too_large) {
    return fail(Status(Code::kInvalid, "LIST_TOO_LARGE",
                       "more than " + std::to_string(kListSortRowsMax) +
                           " rows match, too many to sort; narrow the filter or leave out orderBy")
                    .with_field("orderBy", "would sort too many rows", "")
                    .with_help("lists.md#order"));
  }
  Page page;
  size_t bytes = 0;
  std::string_view last;
  uint32_t skipped = 0;
  for (const auto& [position, item] : first) {
    if (skipped < query.skip) {
      ++skipped;
      continue;
    }
    if (bytes + item.size() > kListPageBytesMax && bytes > 0) {
      more = true;
      break;
    }
    UCCP_TRY(std::string copy, shown(query, item));
    bytes += copy.size();
    page.items.push_back(std::move(copy));
    last = position;
  }
  page.total = query.count_total ? static_cast<int64_t>(matched) : 0;
  if (more) page.next_page_token = token_behind(query, last);
  return page;
}

}  // namespace

Result<Page> paginate(const ListQuery& query, const ScanRows& scan) {
  return query.order.empty() ? page_in_key_order(query, scan) : page_in_sort_order(query, scan);
}

std::string encode_page(const Method& method, const Page& page) {
  std::string out;
  for (const std::string& item : page.items) put_bytes(out, method.items->number, item);
  if (!page.next_page_token.empty() && !method.paging->next_page_token.empty()) {
    set_string(method.paging->next_page_token, out, page.next_page_token);
  }
  const FieldPlan* total = method.response->by_name("total_size");
  if (total != nullptr && page.total > 0) put_uint(out, total->number, static_cast<uint64_t>(page.total));
  return out;
}

}  // namespace uccp::call
