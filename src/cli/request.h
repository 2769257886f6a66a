// Request: the request of one method as the command line builds it: a body from --data or a file, then arguments and
// flags on top. Held as wire bytes; every setter appends, by the merge rule of call/wire.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "call/method.h"
#include "cli/flag.h"
#include "cli/io.h"

namespace uccp::cli {

// The values of an enum as they are written here: "timed-out".
std::vector<std::string> enum_words(const call::EnumPlan& plan);

// What a body from outside holds: what REST takes (the resource where the method has one), or the whole request.
enum class BodyForm : uint8_t { kRest, kWhole };

class Request {
 public:
  // `method` and `io` must outlive the request and its flags.
  Request(const call::Method& method, const Io& io) : method_(method), io_(io) {}
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // One flag a settable field; they write into this request. See docs/cli.md for how they are named.
  std::vector<Flag> flags();

  // Sets or adds to the field. Enum values are taken in any case, `@FILE` is read into bytes fields, messages are JSON,
  // map entries KEY=VALUE. Errors: invalid FIELD_INVALID.
  Status set(const call::FieldPath& path, std::string_view text);
  Status set(std::string_view path, std::string_view text);
  // Whether arguments or flags set it, or the body did.
  bool has(const call::FieldPath& path) const;

  // Takes JSON or YAML; `origin` names it in errors. Arguments and flags win over it, whatever the order.
  Status set_body(std::string_view text, std::string_view origin, BodyForm form = BodyForm::kRest);
  // Positional arguments by MethodPolicy.cli.args. ADDRESS:PORT may stand for two of them, NOUN/ID for an id. Further
  // words are events' texts (`event publish TOPIC TEXT...`) or settings (`config set NAME=VALUE...`).
  Status set_arguments(std::vector<std::string> words);

  const call::Method& method() const { return method_; }
  // Puts what was set by flags and arguments behind the body. Canonical bytes.
  Result<std::string> wire() const;

 private:
  Status set_further(const std::string& word);
  Status set_field(const call::FieldPath& path, std::string_view text);
  Status set_map_entry(const call::FieldPlan& field, std::string_view text, const std::string& path, std::string& out);
  Status set_value(const call::FieldPlan& field, std::string_view text, const std::string& path, std::string& out);

  const call::Method& method_;
  const Io& io_;
  std::string body_;
  std::string overrides_;
};

// JSON text of a request for messages and tests: like REST's JSON, without zero values.
Result<std::string> request_json(const call::Method& method, std::string_view wire);

}  // namespace uccp::cli
