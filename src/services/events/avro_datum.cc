// Checking of Avro's binary encoding. Declared in avro_schema.h.
#include <optional>

#include "base/bytes.h"
#include "services/events/avro_schema.h"

namespace uccp::events {
namespace {

constexpr int kDepthMax = 128;
// Records and unions within each other take several steps for a byte; a list of nulls is as long as it says it is.
constexpr uint64_t kStepsPerByte = 8;
constexpr uint64_t kFreeStepsMax = 100'000;

class DatumCheck {
 public:
  explicit DatumCheck(std::string_view datum)
      : datum_(datum), steps_left_(kStepsPerByte * datum.size() + kFreeStepsMax) {}

  // What is wrong, with broken_at() set; empty if nothing is.
  std::string check(const AvroType& type, int depth) {
    if (depth > kDepthMax) return "is nested more than " + std::to_string(kDepthMax) + " deep";
    if (steps_left_-- == 0) return "takes too long to check";
    int64_t number = 0;
    switch (type.kind) {
      case AvroKind::kNull: return "";
      case AvroKind::kBoolean: return boolean() ? "" : "is no boolean";
      case AvroKind::kInt:
        if (!varint(number)) return "is no int";
        return number == static_cast<int32_t>(number) ? "" : "is too large for an int";
      case AvroKind::kLong: return varint(number) ? "" : "is no long";
      case AvroKind::kFloat: return skip(sizeof(float)) ? "" : "is no float";
      case AvroKind::kDouble: return skip(sizeof(double)) ? "" : "is no double";
      case AvroKind::kBytes: return varint(number) && number >= 0 && skip(static_cast<uint64_t>(number)) ? "" : kShort;
      case AvroKind::kFixed: return skip(type.size) ? "" : kShort;
      case AvroKind::kString: return text();
      case AvroKind::kEnum:
        return varint(number) && is_index(number, type.symbols.size()) ? "" : "is no symbol of " + type.shown();
      case AvroKind::kUnion:
        if (!varint(number) || !is_index(number, type.inner.size())) return "names no branch of its union";
        return check(*type.inner[static_cast<size_t>(number)], depth + 1);
      case AvroKind::kArray:
      case AvroKind::kMap: return blocks(type, depth);
      case AvroKind::kRecord:
        for (const AvroType::Field& field : type.fields) {
          if (std::string wrong = check(*field.type, depth + 1); !wrong.empty()) return within(field.name, wrong);
        }
        return "";
    }
    return "";
  }

  size_t left() const { return datum_.size() - at_; }
  const std::string& broken_at() const { return broken_at_; }

 private:
  static constexpr const char* kShort = "ends before its bytes do";

  static bool is_index(int64_t number, size_t size) { return number >= 0 && static_cast<uint64_t>(number) < size; }

  // The path is put together on the way back, so that what is right costs none.
  std::string within(const std::string& step, std::string wrong) {
    broken_at_ = "/" + step + broken_at_;
    return wrong;
  }

  bool skip(uint64_t count) {
    if (count > left()) return false;
    at_ += count;
    return true;
  }

  // Zigzag, at most ten bytes.
  bool varint(int64_t& out) {
    uint64_t bits = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (left() == 0) return false;
      const auto byte = static_cast<uint8_t>(datum_[at_++]);
      if (shift == 63 && byte > 1) return false;
      bits |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      out = static_cast<int64_t>((bits >> 1) ^ (~(bits & 1) + 1));
      return true;
    }
    return false;
  }

  bool boolean() { return left() > 0 && static_cast<uint8_t>(datum_[at_++]) <= 1; }

  std::string text() {
    int64_t size = 0;
    if (!varint(size) || size < 0 || static_cast<uint64_t>(size) > left()) return kShort;
    const std::string_view text = datum_.substr(at_, static_cast<size_t>(size));
    at_ += text.size();
    return is_utf8(text) ? "" : "is no UTF-8";
  }

  // A negative count is followed by the bytes of the block; zero ends the list.
  std::string blocks(const AvroType& type, int depth) {
    uint64_t number = 0;
    while (true) {
      int64_t count = 0;
      if (!varint(count)) return "does not end";
      if (count == 0) return "";
      std::optional<size_t> end;
      if (count < 0) {
        int64_t size = 0;
        if (count == INT64_MIN || !varint(size) || size < 0 || static_cast<uint64_t>(size) > left()) {
          return "has a block of no size";
        }
        count = -count;
        end = at_ + static_cast<size_t>(size);
      }
      for (int64_t i = 0; i < count; ++i, ++number) {
        std::string wrong = type.kind == AvroKind::kMap ? text() : "";
        if (wrong.empty()) wrong = check(*type.inner.front(), depth + 1);
        if (!wrong.empty()) return within(std::to_string(number), wrong);
      }
      if (end && at_ != *end) return "has a block of another size than it says";
    }
  }

  const std::string_view datum_;
  size_t at_ = 0;
  uint64_t steps_left_;
  std::string broken_at_;
};

}  // namespace

Status AvroSchema::check(std::string_view datum) const {
  DatumCheck check(datum);
  const std::string wrong = check.check(*root_, 0);
  const auto mismatch = [](const std::string& what) { return Status(Code::kInvalid, "SCHEMA_MISMATCH", what); };
  if (!wrong.empty()) return mismatch("'" + (check.broken_at().empty() ? "/" : check.broken_at()) + "' " + wrong);
  if (check.left() == 0) return Status::ok();
  return mismatch("behind the " + root_->shown() + " there are " + std::to_string(check.left()) + " bytes more");
}

}  // namespace uccp::events
