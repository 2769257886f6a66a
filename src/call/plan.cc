#include "call/plan.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/hash.h"

namespace uccp::call {
namespace {

// Numbers up to here are looked up by index.
constexpr uint32_t kDenseMax = 1024;

// Edit distance, given up beyond `limit`.
size_t distance(std::string_view a, std::string_view b, size_t limit) {
  if (a.size() > b.size() + limit || b.size() > a.size() + limit) return limit + 1;
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

}  // namespace

WireType wire_type(Kind kind) {
  switch (kind) {
    case Kind::kSfixed32:
    case Kind::kFixed32:
    case Kind::kFloat: return WireType::kFixed32;
    case Kind::kSfixed64:
    case Kind::kFixed64:
    case Kind::kDouble: return WireType::kFixed64;
    case Kind::kString:
    case Kind::kBytes:
    case Kind::kMessage: return WireType::kBytes;
    default: return WireType::kVarint;
  }
}

bool is_number(Kind kind) { return kind >= Kind::kInt32 && kind <= Kind::kDouble; }

const EnumValue* EnumPlan::by_name(std::string_view name) const {
  for (const EnumValue& value : values) {
    if (value.name == name || value.full_name == name) return &value;
  }
  return nullptr;
}

const EnumValue* EnumPlan::by_number(int32_t number) const {
  // Most enums are numbered 0, 1, 2, ...
  const auto guess = static_cast<size_t>(number);
  if (guess < values.size() && values[guess].number == number) return &values[guess];
  for (const EnumValue& value : values) {
    if (value.number == number) return &value;
  }
  return nullptr;
}

std::string EnumPlan::names() const {
  std::string text;
  for (const EnumValue& value : values) {
    if (value.number == 0 && value.name == "UNSPECIFIED") continue;
    if (!text.empty()) text.append(", ");
    text.append(value.name);
  }
  return text;
}

void MessagePlan::build_lookup() {
  UCCP_CHECK(fields.size() < (1u << 14), "a message with too many fields");
  uint32_t largest = 0;
  for (const FieldPlan& field : fields) {
    if (field.number < kDenseMax) largest = field.number;
  }
  dense_.assign(largest + 1, -1);
  hashed_.assign(std::bit_ceil(fields.size() * 4 + 4), 0);
  const size_t mask = hashed_.size() - 1;
  for (const FieldPlan& field : fields) {
    if (field.number < dense_.size()) dense_[field.number] = static_cast<int16_t>(field.index);
    for (const bool proto_name : {false, true}) {
      if (proto_name && field.name == field.json_name) continue;
      size_t slot = hash64(proto_name ? field.name : field.json_name) & mask;
      while (hashed_[slot] != 0) slot = (slot + 1) & mask;
      hashed_[slot] = static_cast<uint16_t>(1 + 2 * field.index + (proto_name ? 1 : 0));
    }
  }
}

const FieldPlan* MessagePlan::by_large_number(uint32_t number) const {
  const auto at = std::lower_bound(fields.begin(), fields.end(), number,
                                   [](const FieldPlan& field, uint32_t n) { return field.number < n; });
  return at != fields.end() && at->number == number ? &*at : nullptr;
}

const FieldPlan* MessagePlan::by_name(std::string_view wanted) const {
  const size_t mask = hashed_.size() - 1;
  for (size_t slot = hash64(wanted) & mask; hashed_[slot] != 0; slot = (slot + 1) & mask) {
    const auto entry = static_cast<size_t>(hashed_[slot] - 1);
    const FieldPlan& field = fields[entry / 2];
    if ((entry & 1 ? field.name : field.json_name) == wanted) return &field;
  }
  return nullptr;
}

const FieldPlan* MessagePlan::nearest(std::string_view wanted) const {
  const FieldPlan* best = nullptr;
  size_t best_distance = std::min<size_t>(wanted.size() / 3 + 1, 4);
  if (wanted.size() > 64) return nullptr;
  for (const FieldPlan& field : fields) {
    if (field.output_only) continue;
    for (const std::string* name : {&field.json_name, &field.name}) {
      const size_t found = distance(wanted, *name, best_distance);
      if (found < best_distance || (found == best_distance && best == nullptr)) {
        best_distance = found;
        best = &field;
      }
    }
  }
  return best;
}

Result<uint64_t> parse_byte_size(std::string_view text) {
  const auto bad = [&] {
    return fail(Code::kInvalid, "FIELD_INVALID", "not a size in bytes such as 512, 10k, 64Mi or 1.5Gi");
  };
  unsigned __int128 whole = 0, fraction = 0, scale = 1;
  size_t i = 0, digits = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, ++digits) {
    whole = whole * 10 + static_cast<unsigned>(text[i] - '0');
    if (whole > UINT64_MAX) return bad();
  }
  if (i < text.size() && text[i] == '.') {
    for (++i; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, ++digits) {
      if (scale > 1'000'000'000'000) return bad();
      fraction = fraction * 10 + static_cast<unsigned>(text[i] - '0');
      scale *= 10;
    }
  }
  if (digits == 0) return bad();
  std::string_view suffix = text.substr(i);
  if (suffix.ends_with('B')) suffix.remove_suffix(1);
  unsigned __int128 unit = 1;
  if (!suffix.empty()) {
    static constexpr std::string_view kUnits = "kMGTPE";
    const bool binary = suffix.size() == 2 && suffix[1] == 'i';
    const size_t power = binary && suffix[0] == 'K' ? 0 : kUnits.find(suffix[0]);
    if (power == std::string_view::npos || (suffix.size() > 1 && !binary) || (binary && suffix[0] == 'k')) return bad();
    for (size_t k = 0; k <= power; ++k) unit *= binary ? 1024 : 1000;
  }
  const unsigned __int128 bytes = whole * unit + (fraction * unit + scale - 1) / scale;
  if (bytes > UINT64_MAX) return bad();
  return static_cast<uint64_t>(bytes);
}

}  // namespace uccp::call
