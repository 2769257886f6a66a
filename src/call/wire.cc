#include "call/wire.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace uccp::call {
namespace {

constexpr uint32_t kFieldNumberMax = (1u << 29) - 1;

template <typename T>
T load(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

size_t varint_size(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}

}  // namespace

// --- reading --------------------------------------------------------------------------------------------------------

bool WireReader::next_varint(uint64_t& value) {
  if (p_ != end_ && static_cast<uint8_t>(*p_) < 0x80) {
    value = static_cast<uint8_t>(*p_++);
    return true;
  }
  uint64_t result = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (p_ == end_) return fail();
    const auto byte = static_cast<uint8_t>(*p_++);
    result |= static_cast<uint64_t>(byte & 0x7f) << (shift & 63);
    if (byte < 0x80) {
      if (shift == 63 && byte > 1) return fail();
      value = result;
      return true;
    }
  }
  return fail();
}

bool WireReader::next_fixed32(uint64_t& value) {
  if (end_ - p_ < 4) return fail();
  value = load<uint32_t>(p_);
  p_ += 4;
  return true;
}

bool WireReader::next_fixed64(uint64_t& value) {
  if (end_ - p_ < 8) return fail();
  value = load<uint64_t>(p_);
  p_ += 8;
  return true;
}

bool WireReader::next(WireField& field) {
  if (p_ == end_ || !ok_) return false;
  uint64_t tag = 0;
  if (!next_varint(tag)) return false;
  if ((tag >> 3) == 0 || (tag >> 3) > kFieldNumberMax) return fail();
  field.number = static_cast<uint32_t>(tag >> 3);
  switch (tag & 7) {
    case 0: field.type = WireType::kVarint; return next_varint(field.value);
    case 1: field.type = WireType::kFixed64; return next_fixed64(field.value);
    case 5: field.type = WireType::kFixed32; return next_fixed32(field.value);
    case 2: {
      field.type = WireType::kBytes;
      uint64_t size = 0;
      if (!next_varint(size)) return false;
      if (size > static_cast<uint64_t>(end_ - p_)) return fail();
      field.bytes = {p_, static_cast<size_t>(size)};
      p_ += size;
      return true;
    }
    default: return fail();  // groups, and what does not exist
  }
}

// --- writing --------------------------------------------------------------------------------------------------------

void put_varint(std::string& out, uint64_t value) {
  char buffer[10];
  size_t size = 0;
  for (; value >= 0x80; value >>= 7) buffer[size++] = static_cast<char>(value | 0x80);
  buffer[size++] = static_cast<char>(value);
  out.append(buffer, size);
}

void put_tag(std::string& out, uint32_t number, WireType type) {
  put_varint(out, static_cast<uint64_t>(number) << 3 | static_cast<uint64_t>(type));
}

void put_fixed32(std::string& out, uint32_t value) {
  char buffer[4];
  std::memcpy(buffer, &value, 4);
  out.append(buffer, 4);
}

void put_fixed64(std::string& out, uint64_t value) {
  char buffer[8];
  std::memcpy(buffer, &value, 8);
  out.append(buffer, 8);
}

void put_bytes(std::string& out, uint32_t number, std::string_view value) {
  put_tag(out, number, WireType::kBytes);
  put_varint(out, value.size());
  out.append(value);
}

void put_uint(std::string& out, uint32_t number, uint64_t value) {
  put_tag(out, number, WireType::kVarint);
  put_varint(out, value);
}

size_t bytes_size(uint32_t number, size_t value_bytes) {
  return varint_size(static_cast<uint64_t>(number) << 3) + varint_size(value_bytes) + value_bytes;
}

size_t uint_size(uint32_t number, uint64_t value) {
  return varint_size(static_cast<uint64_t>(number) << 3) + varint_size(value);
}

size_t begin_bytes(std::string& out, uint32_t number) {
  put_tag(out, number, WireType::kBytes);
  // Room for the usual length of one byte; end_bytes() makes more where it has to.
  out.push_back('\0');
  return out.size();
}

void end_bytes(std::string& out, size_t mark) {
  uint64_t size = out.size() - mark;
  const size_t length_size = varint_size(size);
  if (length_size > 1) out.insert(mark, length_size - 1, '\0');
  char* at = out.data() + mark - 1;
  for (; size >= 0x80; size >>= 7) *at++ = static_cast<char>(size | 0x80);
  *at = static_cast<char>(size);
}

// --- scanning -------------------------------------------------------------------------------------------------------

namespace {

bool type_fits(const FieldPlan& field, WireType type) {
  const WireType own = wire_type(field.kind);
  return type == own || (type == WireType::kBytes && field.is_repeated());
}

// Keeps of [base, end) the last of equal singular scalars; entries are sorted.
void keep_last(std::vector<WireEntry>& out, size_t base) {
  size_t to = base;
  for (size_t from = base; from < out.size(); ++from) {
    const FieldPlan* field = out[from].field;
    const bool replaced = field != nullptr && field->shape == Shape::kSingular && field->kind != Kind::kMessage &&
                          from + 1 < out.size() && out[from + 1].field == field;
    if (!replaced) out[to++] = out[from];
  }
  out.resize(to);
}

}  // namespace

bool scan_message(const MessagePlan& plan, std::string_view message, UnknownFields unknown,
                  std::vector<WireEntry>& out) {
  const size_t base = out.size();
  bool sorted = true, repeats = false;
  uint32_t last = 0, order = 0;
  std::array<const FieldPlan*, 16> member{};
  WireReader reader(message);
  WireField value;
  while (reader.next(value)) {
    const FieldPlan* field = plan.by_number(value.number);
    if (field == nullptr) {
      if (unknown == UnknownFields::kSkip) continue;
    } else {
      if (!type_fits(*field, value.type)) return false;
      repeats |= value.number == last && field->shape == Shape::kSingular;
      if (field->oneof >= 0) {
        const FieldPlan*& set = member[static_cast<size_t>(field->oneof)];
        if (set != nullptr && set != field) {
          const auto first = out.begin() + static_cast<ptrdiff_t>(base);
          out.erase(std::remove_if(first, out.end(), [&](const WireEntry& entry) { return entry.field == set; }),
                    out.end());
        }
        set = field;
      }
    }
    sorted &= value.number >= last;
    last = value.number;
    out.push_back({field, value, order++});
  }
  if (!reader.ok()) return false;
  if (!sorted) {
    std::sort(out.begin() + static_cast<ptrdiff_t>(base), out.end(), [](const WireEntry& a, const WireEntry& b) {
      return a.value.number != b.value.number ? a.value.number < b.value.number : a.order < b.order;
    });
  }
  if (!sorted || repeats) keep_last(out, base);
  return true;
}

std::string_view merged_message(const std::vector<WireEntry>& entries, size_t& at, size_t end, std::string& storage) {
  const FieldPlan* field = entries[at].field;
  if (at + 1 >= end || entries[at + 1].field != field) return entries[at].value.bytes;
  storage.clear();
  storage.append(entries[at].value.bytes);
  while (at + 1 < end && entries[at + 1].field == field) storage.append(entries[++at].value.bytes);
  return storage;
}

}  // namespace uccp::call
