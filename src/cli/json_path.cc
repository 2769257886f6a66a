#include "cli/json_path.h"

#include <simdjson.h>

#include <charconv>

#include "cli/flag.h"
#include "cli/text.h"

namespace uccp::cli {

using simdjson::dom::element;

// Recursive descent over one template.
class JsonPathParser {
 public:
  explicit JsonPathParser(std::string_view text) : text_(text) {}

  Result<JsonPath> parse() {
    JsonPath path;
    if (!text_.contains('{')) {
      JsonPath::Part part{.is_expression = true};
      UCCP_RETURN_IF_ERROR(steps(part.steps));
      if (at_ < text_.size()) return std::unexpected(wrong("expected . or ["));
      path.parts_.push_back(std::move(part));
      return path;
    }
    while (at_ < text_.size()) {
      JsonPath::Part part;
      if (text_[at_] != '{') {
        const size_t end = std::min(text_.find('{', at_), text_.size());
        part.text = std::string(text_.substr(at_, end - at_));
        at_ = end;
      } else {
        ++at_;
        UCCP_RETURN_IF_ERROR(expression(part));
        if (!take('}')) return std::unexpected(wrong("expected }"));
      }
      path.parts_.push_back(std::move(part));
    }
    return path;
  }

 private:
  Status wrong(std::string_view what) const {
    return usage_error("jsonpath: " + std::string(what) + " at character " + std::to_string(at_ + 1) + " of \"" +
                       printable(text_) + "\"");
  }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Status expression(JsonPath::Part& part) {
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) return quoted(part.text);
    part.is_expression = true;
    return steps(part.steps);
  }

  Status quoted(std::string& out) {
    const char quote = text_[at_++];
    while (at_ < text_.size() && text_[at_] != quote) {
      char c = text_[at_++];
      if (c == '\\' && at_ < text_.size()) {
        c = text_[at_++];
        c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
      }
      out.push_back(c);
    }
    return take(quote) ? Status::ok() : wrong("a quote has no end");
  }

  Status name(std::string& out) {
    const size_t begin = at_;
    while (at_ < text_.size() && !std::string_view(".[]{}()=!<> ").contains(text_[at_])) ++at_;
    out = std::string(text_.substr(begin, at_ - begin));
    return out.empty() ? wrong("expected a name") : Status::ok();
  }

  Status steps(std::vector<JsonPath::Step>& out) {
    take('$') || take('@');
    while (at_ < text_.size()) {
      using Kind = JsonPath::Step::Kind;
      if (take('.')) {
        // "{.}" is the document; ".[" is how some write "[".
        if (at_ >= text_.size() || text_[at_] == '}' || text_[at_] == '[') continue;
        JsonPath::Step step{.kind = Kind::kName};
        UCCP_RETURN_IF_ERROR(name(step.name));
        if (step.name == "*") step.kind = Kind::kAll;
        out.push_back(std::move(step));
      } else if (take('[')) {
        UCCP_RETURN_IF_ERROR(bracket(out));
        if (!take(']')) return wrong("expected ]");
      } else if (out.empty() && std::string_view("}").find(text_[at_]) == std::string_view::npos && at_ == 0) {
        // A bare name at the start: -o jsonpath=status.
        JsonPath::Step step{.kind = Kind::kName};
        UCCP_RETURN_IF_ERROR(name(step.name));
        out.push_back(std::move(step));
      } else {
        break;
      }
    }
    return Status::ok();
  }

  Status bracket(std::vector<JsonPath::Step>& out) {
    using Kind = JsonPath::Step::Kind;
    JsonPath::Step step{.kind = Kind::kAll};
    if (take('*')) {
      out.push_back(std::move(step));
      return Status::ok();
    }
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
      step.kind = Kind::kName;
      UCCP_RETURN_IF_ERROR(quoted(step.name));
      out.push_back(std::move(step));
      return Status::ok();
    }
    if (take("?(")) {
      step.kind = Kind::kFilter;
      UCCP_RETURN_IF_ERROR(filter(step));
      out.push_back(std::move(step));
      return Status::ok();
    }
    step.kind = Kind::kIndex;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), step.index);
    if (error != std::errc()) return wrong("expected a number, *, a quoted name or ?(");
    at_ += static_cast<size_t>(end - begin);
    out.push_back(std::move(step));
    return Status::ok();
  }

  Status filter(JsonPath::Step& step) {
    if (text_.substr(at_, 1) != "@") return wrong("a filter begins with @");
    UCCP_RETURN_IF_ERROR(steps(step.filter_path));
    while (take(' ')) {}
    step.equal = text_.substr(at_, 2) == "==";
    if (!take("==") && !take("!=")) return wrong("expected == or !=");
    while (take(' ')) {}
    if (text_.substr(at_, 1) == "'" || text_.substr(at_, 1) == "\"") {
      UCCP_RETURN_IF_ERROR(quoted(step.operand));
    } else {
      UCCP_RETURN_IF_ERROR(operand(step.operand));
    }
    return take(')') ? Status::ok() : wrong("expected )");
  }

  Status operand(std::string& out) {
    const size_t end = text_.find(')', at_);
    if (end == std::string_view::npos || end == at_) return wrong("expected a value");
    out = std::string(text_.substr(at_, end - at_));
    while (out.ends_with(' ')) out.pop_back();
    at_ = end;
    return Status::ok();
  }

  std::string_view text_;
  size_t at_ = 0;
};

namespace {

std::string text_of(const element& value) {
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

}  // namespace

Result<JsonPath> JsonPath::parse(std::string_view text) { return JsonPathParser(text).parse(); }

void JsonPath::walk(const std::vector<Step>& steps, size_t at, const void* opaque, std::vector<std::string>& out) {
  const element& value = *static_cast<const element*>(opaque);
  if (at == steps.size()) {
    out.push_back(text_of(value));
    return;
  }
  const Step& step = steps[at];
  simdjson::dom::object object;
  simdjson::dom::array array;
  element inner;
  const bool is_array = value.get(array) == simdjson::SUCCESS;
  switch (step.kind) {
    case Step::Kind::kName:
      if (value.get(object) == simdjson::SUCCESS && object.at_key(step.name).get(inner) == simdjson::SUCCESS) {
        walk(steps, at + 1, &inner, out);
      }
      return;
    case Step::Kind::kIndex: {
      if (!is_array) return;
      const auto size = static_cast<int64_t>(array.size());
      const int64_t index = step.index < 0 ? size + step.index : step.index;
      if (index < 0 || index >= size) return;
      if (array.at(static_cast<size_t>(index)).get(inner) == simdjson::SUCCESS) walk(steps, at + 1, &inner, out);
      return;
    }
    case Step::Kind::kAll:
      if (is_array) {
        for (element item : array) walk(steps, at + 1, &item, out);
      } else if (value.get(object) == simdjson::SUCCESS) {
        for (const auto& member : object) {
          element item = member.value;
          walk(steps, at + 1, &item, out);
        }
      }
      return;
    case Step::Kind::kFilter:
      if (!is_array) return;
      for (element item : array) {
        std::vector<std::string> found;
        walk(step.filter_path, 0, &item, found);
        const bool same = found.size() == 1 && found.front() == step.operand;
        if (same == step.equal) walk(steps, at + 1, &item, out);
      }
      return;
  }
}

std::string JsonPath::values(const std::vector<Step>& steps, const void* root) {
  std::vector<std::string> found;
  walk(steps, 0, root, found);
  return join(found, " ");
}

std::string JsonPath::apply(std::string_view json) const {
  simdjson::dom::parser parser;
  element root;
  if (parser.parse(simdjson::padded_string(json)).get(root) != simdjson::SUCCESS) return {};
  std::string out;
  for (const Part& part : parts_) out += part.is_expression ? values(part.steps, &root) : part.text;
  return out;
}

}  // namespace uccp::cli
