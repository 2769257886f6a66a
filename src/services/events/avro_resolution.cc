// Schema resolution of Avro: whether a reader takes everything that a writer may have written. Declared in
// avro_schema.h.
#include <algorithm>

#include "services/events/avro_schema.h"

namespace uccp::events {
namespace {

constexpr int kStepsMax = 100'000;
constexpr size_t kDepthMax = 500;

// Numbers widen, and bytes and strings stand for each other.
bool promotes(AvroKind writer, AvroKind reader) {
  switch (reader) {
    case AvroKind::kLong: return writer == AvroKind::kInt;
    case AvroKind::kFloat: return writer == AvroKind::kInt || writer == AvroKind::kLong;
    case AvroKind::kDouble: return writer == AvroKind::kInt || writer == AvroKind::kLong || writer == AvroKind::kFloat;
    case AvroKind::kBytes: return writer == AvroKind::kString;
    case AvroKind::kString: return writer == AvroKind::kBytes;
    default: return false;
  }
}

bool same_name(const AvroType& reader, const AvroType& writer) {
  return reader.short_name() == writer.short_name() ||
         std::ranges::find(reader.aliases, writer.full_name) != reader.aliases.end();
}

class Resolution {
 public:
  // Why the reader does not read the writer; empty if it does.
  std::string differ(const AvroType& reader, const AvroType& writer, const std::string& where) {
    gave_up_ |= ++steps_ > kStepsMax || open_.size() > kDepthMax;
    if (gave_up_) return at(where) + kGaveUp;
    const std::pair pair(&reader, &writer);
    // What is being compared further out holds there or fails there.
    if (!open_.insert(pair).second) return "";
    std::string why = compare(reader, writer, where);
    open_.erase(pair);
    return why;
  }

 private:
  static constexpr const char* kGaveUp = "cannot be compared in reasonable time";

  static std::string at(const std::string& where) { return "'" + (where.empty() ? "/" : where) + "' "; }

  std::string compare(const AvroType& reader, const AvroType& writer, const std::string& where) {
    if (writer.kind == AvroKind::kUnion) {
      for (const AvroType* branch : writer.inner) {
        if (std::string why = differ(reader, *branch, where); !why.empty()) return why;
      }
      return "";
    }
    if (reader.kind == AvroKind::kUnion) {
      const bool taken = std::ranges::any_of(
          reader.inner, [&](const AvroType* branch) { return differ(*branch, writer, where).empty(); });
      if (gave_up_) return at(where) + kGaveUp;
      return taken ? ""
                   : at(where) + "is written as " + writer.shown() + ", which no branch of the reader's union takes";
    }
    if (reader.kind != writer.kind) {
      if (promotes(writer.kind, reader.kind)) return "";
      return at(where) + "is written as " + writer.shown() + " and read as " + reader.shown();
    }
    if (reader.named() && !same_name(reader, writer)) {
      return at(where) + "is written as " + writer.shown() + " and read as " + reader.shown() +
             "; an alias of the reader may join them";
    }
    switch (reader.kind) {
      case AvroKind::kArray:
      case AvroKind::kMap: return differ(*reader.inner.front(), *writer.inner.front(), where + "/*");
      case AvroKind::kEnum: return symbols(reader, writer, where);
      case AvroKind::kRecord: return fields(reader, writer, where);
      case AvroKind::kFixed:
        if (reader.size != writer.size) return at(where) + "has another size";
        return decimals(reader, writer, where);
      case AvroKind::kBytes: return decimals(reader, writer, where);
      default: return "";
    }
  }

  static std::string decimals(const AvroType& reader, const AvroType& writer, const std::string& where) {
    if (reader.precision == 0 || writer.precision == 0) return "";
    const bool same = reader.precision == writer.precision && reader.scale == writer.scale;
    return same ? "" : at(where) + "is a decimal of another precision or scale";
  }

  static std::string symbols(const AvroType& reader, const AvroType& writer, const std::string& where) {
    if (reader.has_default) return "";
    for (const std::string& symbol : writer.symbols) {
      if (std::ranges::find(reader.symbols, symbol) != reader.symbols.end()) continue;
      return at(where) + "may be the symbol '" + symbol + "', which the reader has not, and it has no default";
    }
    return "";
  }

  static const AvroType::Field* find(const AvroType& writer, const AvroType::Field& wanted) {
    const auto named = [&](const std::string& name) {
      const auto found = std::ranges::find(writer.fields, name, &AvroType::Field::name);
      return found == writer.fields.end() ? nullptr : &*found;
    };
    if (const auto* found = named(wanted.name)) return found;
    for (const std::string& alias : wanted.aliases) {
      if (const auto* found = named(alias)) return found;
    }
    return nullptr;
  }

  // What only the writer has is passed over.
  std::string fields(const AvroType& reader, const AvroType& writer, const std::string& where) {
    for (const AvroType::Field& field : reader.fields) {
      const std::string here = where + "/" + field.name;
      const AvroType::Field* written = find(writer, field);
      if (written == nullptr) {
        if (field.has_default) continue;
        return at(here) + "is not written, and the reader has no default for it";
      }
      if (std::string why = differ(*field.type, *written->type, here); !why.empty()) return why;
    }
    return "";
  }

  std::set<std::pair<const AvroType*, const AvroType*>> open_;
  int steps_ = 0;
  bool gave_up_ = false;
};

}  // namespace

Status AvroSchema::reads(const AvroSchema& writer) const {
  const std::string why = Resolution().differ(*root_, *writer.root_, "");
  return why.empty() ? Status::ok() : Status(Code::kFailedPrecondition, "SCHEMA_INCOMPATIBLE", why);
}

}  // namespace uccp::events
