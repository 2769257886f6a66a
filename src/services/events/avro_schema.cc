// Reading of Avro schemas. Declared in avro_schema.h.
#include "services/events/avro_schema.h"

#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "services/events/json_value.h"

namespace uccp::events {
namespace {

using google::protobuf::Value;

constexpr int kDepthMax = 64;
constexpr double kFixedBytesMax = 16u << 20;
constexpr auto kKindNames =
    std::to_array<std::string_view>({"null", "boolean", "int", "long", "float", "double", "bytes", "string", "record",
                                     "enum", "array", "map", "union", "fixed"});

Status invalid(const std::string& where, const std::string& what) {
  return Status(Code::kInvalid, "SCHEMA_INVALID", "the Avro schema at '" + (where.empty() ? "/" : where) + "' " + what);
}

std::optional<AvroKind> kind_of(std::string_view name) {
  const auto at = std::ranges::find(kKindNames, name);
  // A union has no name: it is a list.
  if (at == kKindNames.end() || name == "union") return std::nullopt;
  return static_cast<AvroKind>(at - kKindNames.begin());
}

bool is_primitive(AvroKind kind) { return kind <= AvroKind::kString; }

bool is_simple_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !name.empty() && letter(name.front()) &&
         std::ranges::all_of(name, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

bool is_full_name(std::string_view name) {
  for (size_t from = 0;;) {
    const size_t dot = name.find('.', from);
    if (!is_simple_name(name.substr(from, dot - from))) return false;
    if (dot == std::string_view::npos) return true;
    from = dot + 1;
  }
}

std::string text_of(const Value* value) {
  return value != nullptr && value->has_string_value() ? value->string_value() : "";
}

std::string namespace_of(std::string_view full_name) {
  const size_t dot = full_name.rfind('.');
  return dot == std::string_view::npos ? "" : std::string(full_name.substr(0, dot));
}

std::string joined(const std::string& name_space, const std::string& name) {
  return name_space.empty() || name.find('.') != std::string::npos ? name : name_space + "." + name;
}

// Characters of a default of bytes stand for a byte each.
std::optional<size_t> bytes_in(const std::string& text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++i, ++count) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) continue;
    if ((byte & 0xfc) != 0xc0) return std::nullopt;  // U+0100 and above
    ++i;
  }
  return count;
}

bool is_whole(double number, double least, double most) {
  return std::trunc(number) == number && number >= least && number <= most;
}

// Whether values may be defaults. Records that hold unions of records can be tried in very many ways, so that the steps
// of a whole schema are counted: behind the last one nothing is a default.
class DefaultCheck {
 public:
  bool accepts(const AvroType& type, const Value& value) {
    if (steps_left_ == 0) return false;
    --steps_left_;
    const double number = value.number_value();
    switch (type.kind) {
      case AvroKind::kNull: return value.has_null_value();
      case AvroKind::kBoolean: return value.has_bool_value();
      case AvroKind::kInt: return value.has_number_value() && is_whole(number, INT32_MIN, INT32_MAX);
      case AvroKind::kLong: return value.has_number_value() && is_whole(number, -0x1p63, 0x1p63);
      case AvroKind::kFloat:
      case AvroKind::kDouble: return value.has_number_value();
      case AvroKind::kString: return value.has_string_value();
      case AvroKind::kBytes: return value.has_string_value() && bytes_in(value.string_value());
      case AvroKind::kFixed: return value.has_string_value() && bytes_in(value.string_value()) == type.size;
      case AvroKind::kEnum:
        return value.has_string_value() && std::ranges::find(type.symbols, value.string_value()) != type.symbols.end();
      case AvroKind::kArray:
        return value.has_list_value() && std::ranges::all_of(value.list_value().values(), [&](const Value& item) {
                 return accepts(*type.inner.front(), item);
               });
      case AvroKind::kMap:
        return value.has_struct_value() && std::ranges::all_of(value.struct_value().fields(), [&](const auto& entry) {
                 return accepts(*type.inner.front(), entry.second);
               });
      case AvroKind::kUnion:
        return std::ranges::any_of(type.inner, [&](const AvroType* branch) { return accepts(*branch, value); });
      case AvroKind::kRecord:
        return value.has_struct_value() && std::ranges::all_of(type.fields, [&](const AvroType::Field& field) {
                 const Value* one = member(value, field.name);
                 return one == nullptr ? field.has_default : accepts(*field.type, *one);
               });
    }
    return false;
  }

 private:
  int steps_left_ = 100'000;
};

}  // namespace

std::string_view avro_kind_name(AvroKind kind) { return kKindNames[static_cast<size_t>(kind)]; }

std::string_view AvroType::short_name() const {
  const std::string_view name = full_name;
  return name.substr(name.rfind('.') + 1);
}

std::string AvroType::shown() const {
  return std::string(avro_kind_name(kind)) + (full_name.empty() ? "" : " " + full_name);
}

class AvroReader {
 public:
  explicit AvroReader(AvroSchema& schema) : schema_(schema) {}

  Result<const AvroType*> read(const Value& value, const std::string& name_space, const std::string& where, int depth) {
    if (depth > kDepthMax) {
      return std::unexpected(invalid(where, "is nested more than " + std::to_string(kDepthMax) + " deep"));
    }
    if (value.has_string_value()) return known(value.string_value(), name_space, where);
    if (value.has_list_value()) return read_union(value, name_space, where, depth);
    if (!value.has_struct_value()) return std::unexpected(invalid(where, "is no schema: a name, a list or an object"));
    const Value* type = member(value, "type");
    if (type == nullptr) return std::unexpected(invalid(where, "has no 'type'"));
    // {"type": {...}} and {"type": [...]} are written by generators.
    if (!type->has_string_value()) return read(*type, name_space, where + "/type", depth + 1);
    const auto kind = kind_of(type->string_value());
    if (!kind) return known(type->string_value(), name_space, where + "/type");
    if (is_primitive(*kind)) return read_primitive(value, *kind);
    if (*kind == AvroKind::kArray || *kind == AvroKind::kMap) return read_many(value, *kind, name_space, where, depth);
    return read_named(value, *kind, name_space, where, depth);
  }

 private:
  AvroType& add(AvroKind kind) {
    schema_.types_.push_back(std::make_unique<AvroType>());
    schema_.types_.back()->kind = kind;
    return *schema_.types_.back();
  }

  Result<const AvroType*> known(const std::string& name, const std::string& name_space, const std::string& where) {
    if (const auto kind = kind_of(name)) {
      if (is_primitive(*kind)) return &add(*kind);
      return std::unexpected(invalid(where, "needs an object to say what " + name + " it is"));
    }
    const auto found = names_.find(joined(name_space, name));
    if (found != names_.end()) return found->second;
    return std::unexpected(invalid(where, "names the type '" + name + "', which is not defined before"));
  }

  static void read_logical(const Value& value, AvroType& type) {
    if (text_of(member(value, "logicalType")) != "decimal") return;
    const Value* precision = member(value, "precision");
    const Value* scale = member(value, "scale");
    const double digits = precision == nullptr ? 0 : precision->number_value();
    const double behind = scale == nullptr ? 0 : scale->number_value();
    // As the specification says, a logical type that is none is passed over.
    if (!is_whole(digits, 1, INT32_MAX) || !is_whole(behind, 0, digits)) return;
    type.precision = static_cast<int32_t>(digits);
    type.scale = static_cast<int32_t>(behind);
  }

  Result<const AvroType*> read_primitive(const Value& value, AvroKind kind) {
    AvroType& type = add(kind);
    if (kind == AvroKind::kBytes) read_logical(value, type);
    return &type;
  }

  Result<const AvroType*> read_many(const Value& value, AvroKind kind, const std::string& name_space,
                                    const std::string& where, int depth) {
    const std::string what = kind == AvroKind::kArray ? "items" : "values";
    const Value* inner = member(value, what);
    if (inner == nullptr) return std::unexpected(invalid(where, "has no '" + what + "'"));
    AvroType& type = add(kind);
    UCCP_TRY(const AvroType* of, read(*inner, name_space, where + "/" + what, depth + 1));
    type.inner.push_back(of);
    return &type;
  }

  Result<const AvroType*> read_union(const Value& value, const std::string& name_space, const std::string& where,
                                     int depth) {
    AvroType& type = add(AvroKind::kUnion);
    std::set<std::string> seen;
    for (const Value& one : value.list_value().values()) {
      const std::string here = where + "/" + std::to_string(type.inner.size());
      UCCP_TRY(const AvroType* branch, read(one, name_space, here, depth + 1));
      if (branch->kind == AvroKind::kUnion) return std::unexpected(invalid(here, "is a union in a union"));
      if (!seen.insert(branch->named() ? branch->full_name : std::string(avro_kind_name(branch->kind))).second) {
        return std::unexpected(invalid(here, "is the second " + branch->shown() + " of the union"));
      }
      type.inner.push_back(branch);
    }
    if (type.inner.empty()) return std::unexpected(invalid(where, "is a union of nothing"));
    return &type;
  }

  Result<const AvroType*> read_named(const Value& value, AvroKind kind, const std::string& enclosing,
                                     const std::string& where, int depth) {
    const std::string name = text_of(member(value, "name"));
    if (!is_full_name(name)) {
      return std::unexpected(invalid(where + "/name", "is no name: letters, digits and _, not beginning with a digit"));
    }
    const Value* own = member(value, "namespace");
    const std::string space = own == nullptr ? enclosing : text_of(own);
    if (!space.empty() && !is_full_name(space)) return std::unexpected(invalid(where + "/namespace", "is no name"));
    AvroType& type = add(kind);
    type.full_name = joined(space, name);
    if (kind_of(type.full_name)) return std::unexpected(invalid(where + "/name", "is the name of a type of Avro"));
    if (!names_.emplace(type.full_name, &type).second) {
      return std::unexpected(invalid(where + "/name", "defines '" + type.full_name + "' a second time"));
    }
    const std::string inside = namespace_of(type.full_name);
    UCCP_RETURN_IF_ERROR(read_aliases(value, where, type.aliases));
    for (std::string& alias : type.aliases) alias = joined(inside, alias);
    Status status;
    if (kind == AvroKind::kFixed) status = read_fixed(value, where, type);
    else if (kind == AvroKind::kEnum) status = read_enum(value, where, type);
    else status = read_fields(value, inside, where, depth, type);
    UCCP_RETURN_IF_ERROR(status);
    return &type;
  }

  static Status read_aliases(const Value& value, const std::string& where, std::vector<std::string>& out) {
    const Value* aliases = member(value, "aliases");
    if (aliases == nullptr) return Status::ok();
    for (const Value& alias : aliases->list_value().values()) {
      if (!is_full_name(alias.string_value())) return invalid(where + "/aliases", "has what is no name");
      out.push_back(alias.string_value());
    }
    return Status::ok();
  }

  static Status read_fixed(const Value& value, const std::string& where, AvroType& type) {
    const Value* size = member(value, "size");
    if (size == nullptr || !size->has_number_value() || !is_whole(size->number_value(), 0, kFixedBytesMax)) {
      return invalid(where + "/size", "is no number of bytes");
    }
    type.size = static_cast<uint64_t>(size->number_value());
    read_logical(value, type);
    return Status::ok();
  }

  Status read_enum(const Value& value, const std::string& where, AvroType& type) {
    const Value* symbols = member(value, "symbols");
    if (symbols == nullptr || symbols->list_value().values().empty()) {
      return invalid(where + "/symbols", "lists no symbols");
    }
    for (const Value& symbol : symbols->list_value().values()) {
      const std::string& text = symbol.string_value();
      if (!is_simple_name(text)) return invalid(where + "/symbols", "has what is no name");
      if (std::ranges::find(type.symbols, text) != type.symbols.end()) {
        return invalid(where + "/symbols", "has '" + text + "' twice");
      }
      type.symbols.push_back(text);
    }
    if (const Value* fallback = member(value, "default")) {
      if (!defaults_.accepts(type, *fallback)) return invalid(where + "/default", "is none of the symbols");
      type.has_default = true;
    }
    return Status::ok();
  }

  Status read_fields(const Value& value, const std::string& inside, const std::string& where, int depth,
                     AvroType& type) {
    const Value* fields = member(value, "fields");
    if (fields == nullptr || !fields->has_list_value()) return invalid(where + "/fields", "is no list of fields");
    for (const Value& one : fields->list_value().values()) {
      const std::string here = where + "/fields/" + std::to_string(type.fields.size());
      AvroType::Field field{.name = text_of(member(one, "name"))};
      if (!is_simple_name(field.name)) return invalid(here + "/name", "is no name");
      for (const AvroType::Field& before : type.fields) {
        if (before.name == field.name) return invalid(here, "is the second field '" + field.name + "'");
      }
      UCCP_RETURN_IF_ERROR(read_aliases(one, here, field.aliases));
      const Value* of = member(one, "type");
      if (of == nullptr) return invalid(here, "has no 'type'");
      auto read_type = read(*of, inside, here + "/type", depth + 1);
      if (!read_type) return read_type.error();
      field.type = *read_type;
      if (const Value* fallback = member(one, "default")) {
        if (!defaults_.accepts(*field.type, *fallback))
          return invalid(here + "/default", "is no " + field.type->shown());
        field.has_default = true;
      }
      type.fields.push_back(std::move(field));
    }
    return Status::ok();
  }

  AvroSchema& schema_;
  DefaultCheck defaults_;
  std::map<std::string, const AvroType*> names_;
};

Result<std::shared_ptr<const AvroSchema>> AvroSchema::parse(const std::string& definition) {
  auto root = parse_json(definition);
  if (!root) {
    return std::unexpected(invalid("", "cannot be read: " + std::string(root.error().message())));
  }
  std::shared_ptr<AvroSchema> schema(new AvroSchema);
  UCCP_TRY(schema->root_, AvroReader(*schema).read(*root, "", "", 0));
  return schema;
}

}  // namespace uccp::events
