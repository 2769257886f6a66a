// Label selectors.
#include <algorithm>
#include <array>

#include "call/json_codec_text.h"
#include "call/listing.h"

namespace uccp::call {
namespace {

constexpr size_t kSelectorTermsMax = 32;
constexpr size_t kSelectorValuesMax = 64;

bool is_label_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '/' || c == '-';
}

// Takes tokens off the front of a selector.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool at_end() {
    skip();
    return at_ == text_.size();
  }
  bool take(std::string_view what) {
    skip();
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  std::string key() {
    skip();
    const size_t begin = at_;
    while (at_ < text_.size() && is_label_char(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  // Any text up to one of the characters that end a value.
  std::string value(std::string_view ends) {
    skip();
    const size_t begin = at_;
    while (at_ < text_.size() && ends.find(text_[at_]) == std::string_view::npos) ++at_;
    std::string_view found = text_.substr(begin, at_ - begin);
    while (found.ends_with(' ')) found.remove_suffix(1);
    return std::string(found);
  }
  size_t position() const { return at_ + 1; }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Result<LabelSelector> LabelSelector::compile(std::string_view text, std::string_view field) {
  LabelSelector selector;
  Cursor in(text);
  const auto wrong = [&](std::string what) {
    what.append(" at position ").append(std::to_string(in.position()));
    return fail(Status(Code::kInvalid, "SELECTOR_INVALID", "the label selector is not valid: " + what)
                    .with_field(std::string(field), std::move(what), "tier=web,env!=dev,zone in (a|b)")
                    .with_help("lists.md#labels"));
  };
  while (!in.at_end()) {
    Term term;
    const bool negated = in.take("!");
    term.key = in.key();
    if (term.key.empty()) return wrong("expected a label key");
    if (negated) {
      term.kind = Term::Kind::kAbsent;
    } else if (in.take("!=")) {
      term.kind = Term::Kind::kNotIn;
      term.values.push_back(in.value(","));
    } else if (in.take("==") || in.take("=")) {
      term.kind = Term::Kind::kIn;
      term.values.push_back(in.value(","));
    } else if (const bool outside = in.take("notin"); outside || in.take("in")) {
      term.kind = outside ? Term::Kind::kNotIn : Term::Kind::kIn;
      if (!in.take("(")) return wrong("expected '(' and values");
      do {
        term.values.push_back(in.value("|,)"));
        if (term.values.size() > kSelectorValuesMax) return wrong("too many values");
      } while (in.take("|") || in.take(","));
      if (!in.take(")")) return wrong("expected ')'");
    }
    selector.terms_.push_back(std::move(term));
    if (selector.terms_.size() > kSelectorTermsMax)
      return wrong("more than " + std::to_string(kSelectorTermsMax) + " terms");
    if (!in.at_end() && !in.take(",")) return wrong("expected ',' or the end");
  }
  return selector;
}

bool LabelSelector::holds(const Term& term, const std::string_view* value) {
  switch (term.kind) {
    case Term::Kind::kExists: return value != nullptr;
    case Term::Kind::kAbsent: return value == nullptr;
    case Term::Kind::kIn: return value != nullptr && std::ranges::find(term.values, *value) != term.values.end();
    case Term::Kind::kNotIn: return value == nullptr || std::ranges::find(term.values, *value) == term.values.end();
  }
  return false;
}

bool LabelSelector::matches(std::string_view message, uint32_t labels_field) const {
  if (terms_.empty()) return true;
  // One pass over the message finds the labels of all terms.
  std::array<std::string_view, kSelectorTermsMax> values;
  std::array<bool, kSelectorTermsMax> found{};
  WireReader reader(message);
  WireField field;
  while (reader.next(field)) {
    if (field.number != labels_field || field.type != WireType::kBytes) continue;
    std::string_view key, value;
    WireReader entry(field.bytes);
    WireField part;
    while (entry.next(part)) (part.number == 1 ? key : value) = part.bytes;
    for (size_t i = 0; i < terms_.size(); ++i) {
      if (terms_[i].key != key) continue;
      values[i] = value;
      found[i] = true;
    }
  }
  for (size_t i = 0; i < terms_.size(); ++i) {
    if (!holds(terms_[i], found[i] ? &values[i] : nullptr)) return false;
  }
  return true;
}

bool LabelSelector::matches(const std::map<std::string, std::string>& labels) const {
  return std::ranges::all_of(terms_, [&](const Term& term) {
    const auto found = labels.find(term.key);
    if (found == labels.end()) return holds(term, nullptr);
    const std::string_view value = found->second;
    return holds(term, &value);
  });
}

}  // namespace uccp::call
