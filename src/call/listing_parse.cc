// The parser of filters: recursive descent, bounded in depth and terms.
#include <charconv>
#include <optional>

#include "call/json_codec_text.h"
#include "call/listing_filter.h"

namespace uccp::call {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_operator(char c) { return c == '=' || c == '!' || c == '<' || c == '>' || c == ':'; }
bool ends_path(char c) {
  return is_space(c) || is_operator(c) || c == '(' || c == ')' || c == '"' || c == '\'' || c == ',';
}
// Times and IPv6 addresses have colons.
bool ends_value(char c) { return is_space(c) || c == '(' || c == ')' || c == '"' || c == '\''; }

bool is_filterable(const FieldPlan& field) { return field.filterable; }
bool is_json(const FieldPlan& field) {
  return field.filterable && field.is_message() && field.message->well_known == WellKnown::kValue;
}

}  // namespace

class FilterParser {
 public:
  FilterParser(const MessagePlan& plan, std::string_view text) : plan_(plan), text_(text) {}

  Result<Filter> parse() {
    skip();
    if (at_ == text_.size()) return Filter();
    UCCP_TRY(uint32_t root, all(0));
    static_cast<void>(root);  // the last node
    if (at_ != text_.size()) return error("expected AND, OR or the end");
    return std::move(filter_);
  }

 private:
  using Node = Filter::Node;
  using Operator = Filter::Operator;
  using Type = Filter::Type;
  using Comparison = Filter::Comparison;
  struct Word {
    std::string text;
    bool quoted = false;
    size_t begin = 0;
  };

  std::unexpected<Status> error(std::string what, std::optional<size_t> at = {}) const {
    const size_t where = at.value_or(at_);
    std::string description = what + " at position " + std::to_string(where + 1);
    if (where < text_.size()) description.append(", before ").append(excerpt(text_.substr(where)));
    return fail(Status(Code::kInvalid, "FILTER_INVALID", "the filter is not valid: " + description)
                    .with_field("filter", std::move(description), "name = \"a\" AND labels.tier = \"web\"")
                    .with_help("lists.md#filter"));
  }

  void skip() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  // Takes `word` if it stands here as a word of its own.
  bool take_keyword(std::string_view word) {
    skip();
    if (!text_.substr(at_).starts_with(word)) return false;
    const size_t end = at_ + word.size();
    if (end < text_.size() && !is_space(text_[end]) && text_[end] != '(') return false;
    at_ = end;
    return true;
  }

  uint32_t add(Node node) {
    filter_.nodes_.push_back(node);
    return static_cast<uint32_t>(filter_.nodes_.size() - 1);
  }

  Result<uint32_t> all(int depth) {
    UCCP_TRY(uint32_t left, any(depth));
    for (;;) {
      skip();
      if (at_ == text_.size() || text_[at_] == ')') return left;
      take_keyword("AND");
      skip();
      if (at_ == text_.size()) return error("expected a comparison");
      UCCP_TRY(uint32_t right, any(depth));
      left = add({Node::Kind::kAnd, left, right});
    }
  }

  Result<uint32_t> any(int depth) {
    UCCP_TRY(uint32_t left, factor(depth));
    while (take_keyword("OR")) {
      UCCP_TRY(uint32_t right, factor(depth));
      left = add({Node::Kind::kOr, left, right});
    }
    return left;
  }

  Result<uint32_t> factor(int depth) {
    if (depth > kFilterDepthMax) return error("more than " + std::to_string(kFilterDepthMax) + " levels");
    skip();
    bool negated = take_keyword("NOT");
    if (!negated && at_ < text_.size() && text_[at_] == '-') {
      ++at_;
      negated = true;
    }
    skip();
    uint32_t node;
    if (at_ < text_.size() && text_[at_] == '(') {
      ++at_;
      UCCP_TRY(node, all(depth + 1));
      skip();
      if (at_ == text_.size() || text_[at_] != ')') return error("expected ')'");
      ++at_;
    } else {
      UCCP_TRY(node, comparison());
    }
    return negated ? add({Node::Kind::kNot, node, 0}) : node;
  }

  Result<std::string> quoted() {
    const char quote = text_[at_];
    const size_t begin = at_++;
    std::string out;
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      out.push_back(text_[at_++]);
    }
    if (at_ == text_.size()) return error("the text in quotes does not end", begin);
    ++at_;
    return out;
  }

  Result<uint32_t> comparison() {
    if (filter_.comparisons_.size() >= kFilterTermsMax) {
      return error("more than " + std::to_string(kFilterTermsMax) + " comparisons");
    }
    Comparison c;
    UCCP_RETURN_IF_ERROR(path(c));
    skip();
    const size_t op_at = at_;
    if (!take_operator(c.op)) return error("expected one of = != < <= > >= :");
    skip();
    UCCP_TRY(const Word value, this->value());
    UCCP_RETURN_IF_ERROR(bind(c, value, op_at));
    filter_.comparisons_.push_back(std::move(c));
    return add({Node::Kind::kComparison, static_cast<uint32_t>(filter_.comparisons_.size() - 1), 0});
  }

  bool take_operator(Operator& op) {
    static constexpr std::pair<std::string_view, Operator> kOperators[] = {
        {"!=", Operator::kNotEqual}, {"<=", Operator::kLessEqual}, {">=", Operator::kGreaterEqual},
        {"=", Operator::kEqual},     {"<", Operator::kLess},       {">", Operator::kGreater},
        {":", Operator::kHas}};
    for (const auto& [text, known] : kOperators) {
      if (!text_.substr(at_).starts_with(text)) continue;
      at_ += text.size();
      op = known;
      return true;
    }
    return false;
  }

  Result<Word> value() {
    Word word{{}, false, at_};
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
      UCCP_TRY(word.text, quoted());
      word.quoted = true;
      return word;
    }
    while (at_ < text_.size() && !ends_value(text_[at_])) word.text.push_back(text_[at_++]);
    if (word.text.empty()) return error("expected a value");
    return word;
  }

  // "a.b" up to the operator; what follows a map field is its key, dots included.
  Status path(Comparison& c) {
    const size_t begin = at_;
    std::string text;
    while (at_ < text_.size() && !ends_path(text_[at_])) text.push_back(text_[at_++]);
    std::optional<std::string> quoted_key;
    if (text.ends_with('.') && at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
      UCCP_TRY(quoted_key, quoted());
      text.pop_back();
    }
    if (text.empty()) return error("expected the name of a field", begin).error();
    const MessagePlan* plan = &plan_;
    for (size_t from = 0;;) {
      const size_t dot = text.find('.', from);
      const FieldPlan* field = plan->by_name(std::string_view(text).substr(from, dot - from));
      const bool last = dot == std::string::npos;
      const bool steps = field != nullptr && field->is_message() && field->message->well_known == WellKnown::kNone;
      if (field != nullptr && is_json(*field)) return json_path(c, text, dot, quoted_key, begin);
      if (field == nullptr || (!last && !steps && !field->is_map())) return unknown_field(text, begin);
      if (field->is_map() || last) {
        const bool text_map = field->is_map() && field->map_value->kind == Kind::kString;
        if (!field->filterable || (field->is_map() && !text_map)) return unknown_field(text, begin);
        auto compiled = FieldPath::compile(plan_, std::string_view(text).substr(0, dot));
        if (!compiled) return unknown_field(text, begin);
        c.path = std::move(*compiled);
        if (quoted_key && (!field->is_map() || !last)) return unknown_field(text, begin);
        if (quoted_key) c.map_key = *quoted_key;
        else if (!last) c.map_key = text.substr(dot + 1);
        c.type = field->is_map() ? (c.map_key.empty() ? Type::kMapKey : Type::kMapValue) : type_of(*field);
        return Status::ok();
      }
      plan = field->message;
      from = dot + 1;
    }
  }

  // What follows the field are keys of objects.
  Status json_path(Comparison& c, const std::string& text, size_t dot, const std::optional<std::string>& quoted_key,
                   size_t begin) {
    if (++filter_.json_terms_ > kFilterJsonTermsMax) {
      return error("more than " + std::to_string(kFilterJsonTermsMax) + " comparisons look into a JSON value", begin)
          .error();
    }
    auto compiled = FieldPath::compile(plan_, std::string_view(text).substr(0, dot));
    if (!compiled) return unknown_field(text, begin);
    c.path = std::move(*compiled);
    c.type = Type::kJson;
    while (dot != std::string::npos) {
      const size_t from = dot + 1;
      dot = text.find('.', from);
      c.keys.push_back(text.substr(from, dot - from));
      if (c.keys.back().empty()) return error("expected a key of a JSON object", begin).error();
    }
    if (quoted_key) c.keys.push_back(*quoted_key);
    return Status::ok();
  }

  Status unknown_field(const std::string& name, size_t at) const {
    return error(
               "\"" + name + "\" is not a field to filter by (these are: " + usable_fields(plan_, is_filterable) + ")",
               at)
        .error();
  }

  static Type type_of(const FieldPlan& field) {
    if (field.is_repeated()) return field.kind == Kind::kString ? Type::kList : Type::kSet;
    switch (field.kind) {
      case Kind::kString:
      case Kind::kBytes: return Type::kText;
      case Kind::kBool: return Type::kBool;
      case Kind::kEnum: return Type::kEnum;
      case Kind::kFloat:
      case Kind::kDouble: return Type::kReal;
      case Kind::kUint32:
      case Kind::kFixed32:
      case Kind::kUint64:
      case Kind::kFixed64: return Type::kUnsigned;
      case Kind::kMessage: {
        const bool time =
            field.message->well_known == WellKnown::kTimestamp || field.message->well_known == WellKnown::kDuration;
        return time ? Type::kTime : Type::kSet;
      }
      default: return Type::kSigned;
    }
  }

  // Gives the comparison its value, in the type of its field.
  Status bind(Comparison& c, const Word& value, size_t op_at) {
    const bool star = !value.quoted && value.text == "*";
    if (c.type == Type::kJson) {
      bind_json(c, value, star);
      return Status::ok();
    }
    if (c.op == Operator::kHas && star && c.type != Type::kMapKey && c.type != Type::kMapValue) {
      c.type = Type::kSet;
      return Status::ok();
    }
    switch (c.type) {
      case Type::kSet: return error("here only \": *\" is possible", op_at).error();
      case Type::kList:
      case Type::kMapKey:
        if (c.op != Operator::kHas) {
          return error(c.type == Type::kList ? "a list is asked for an item with ':'"
                                             : "a map is asked for a key with ':', or for a value by labels.KEY",
                       op_at)
              .error();
        }
        c.text = value.text;
        return Status::ok();
      case Type::kMapValue:
        if (c.op == Operator::kHas && star) {
          c.text = std::exchange(c.map_key, {});
          c.type = Type::kMapKey;
          return Status::ok();
        }
        bind_text(c, value);
        return Status::ok();
      case Type::kText: bind_text(c, value); return Status::ok();
      default: break;
    }
    if (c.op == Operator::kHas) c.op = Operator::kEqual;
    const bool ordered = c.op != Operator::kEqual && c.op != Operator::kNotEqual;
    if (ordered && (c.type == Type::kBool || c.type == Type::kEnum)) {
      return error(c.path.text() + " has no order: use = or !=", op_at).error();
    }
    const std::string wrong = bind_number(c, value);
    if (!wrong.empty()) return error(c.path.text() + " " + wrong, value.begin).error();
    return Status::ok();
  }

  // A word may mean a number, true, false or null; in quotes it is a text.
  static void bind_json(Comparison& c, const Word& value, bool star) {
    bind_text(c, value);
    if (c.op == Operator::kHas) c.any_suffix = star;
    if (value.quoted) return;
    const char* end = value.text.data() + value.text.size();
    const auto parsed = std::from_chars(value.text.data(), end, c.real);
    if (parsed.ec == std::errc() && parsed.ptr == end) c.also = JsonLeaf::Kind::kNumber;
    else if (value.text == "null") c.also = JsonLeaf::Kind::kNull;
    else if (value.text == "true" || value.text == "false") {
      c.also = JsonLeaf::Kind::kBool;
      c.signed_value = value.text == "true" ? 1 : 0;
    }
  }

  static void bind_text(Comparison& c, const Word& value) {
    std::string_view text = value.text;
    if (c.op == Operator::kEqual || c.op == Operator::kNotEqual) {
      if (text.starts_with('*')) {
        c.any_prefix = true;
        text.remove_prefix(1);
      }
      if (text.ends_with('*')) {
        c.any_suffix = true;
        text.remove_suffix(1);
      }
      // "*" alone: any text.
      if (value.text == "*") c.any_suffix = true;
    }
    c.text = text;
  }

  // Returns what is wrong, or an empty string.
  static std::string bind_number(Comparison& c, const Word& value) {
    const FieldPlan& field = c.path.leaf();
    if (c.type == Type::kTime) {
      const bool point = field.message->well_known == WellKnown::kTimestamp;
      SecondsNanos time;
      if (!(point ? parse_timestamp(value.text, time) : parse_duration(value.text, time))) {
        return point ? "is a time, such as 2024-05-01T12:00:00Z" : "is a duration, such as 1h30m";
      }
      c.signed_value = time.seconds;
      c.nanos = time.nanos;
      return {};
    }
    if (c.type == Type::kReal) {
      const char* end = value.text.data() + value.text.size();
      const auto parsed = std::from_chars(value.text.data(), end, c.real);
      return parsed.ec == std::errc() && parsed.ptr == end ? "" : "is a number";
    }
    if (field.byte_size) {
      auto size = parse_byte_size(value.text);
      if (!size) return "is a size, such as 64Mi";
      c.unsigned_value = *size;
      c.signed_value = static_cast<int64_t>(*size);
      return {};
    }
    uint64_t bits = 0;
    std::string wrong = text_to_bits(field, value.text, bits);
    if (!wrong.empty()) return wrong;
    // text_to_bits() gives the wire form; get_uint() undoes the zigzag of the stored side.
    if (field.kind == Kind::kSint32 || field.kind == Kind::kSint64) bits = (bits >> 1) ^ (0 - (bits & 1));
    c.unsigned_value = bits;
    const bool narrow = field.kind == Kind::kSfixed32 || field.kind == Kind::kInt32 || field.kind == Kind::kEnum;
    c.signed_value = narrow ? static_cast<int64_t>(static_cast<int32_t>(bits)) : static_cast<int64_t>(bits);
    return {};
  }

  const MessagePlan& plan_;
  const std::string_view text_;
  size_t at_ = 0;
  Filter filter_;
};

Result<Filter> Filter::compile(const MessagePlan& item, std::string_view text) {
  if (text.size() > kFilterBytesMax) {
    return fail(Status(Code::kInvalid, "FILTER_INVALID",
                       "the filter has " + std::to_string(text.size()) + " bytes; at most " +
                           std::to_string(kFilterBytesMax) + " are taken")
                    .with_field("filter", "is too long"));
  }
  return FilterParser(item, text).parse();
}

}  // namespace uccp::call
