// JSONPath templates as kubectl has them: `{.id}`, `{[*].status}`, `{[?(@.healthy==true)].address}{"\n"}`.
//
//   template  = (text | "{" expression "}")*; without any braces the whole is one expression
//   expression = quoted text with \n and \t, or steps from the root: $ (optional), .name, ['name'], [number] (negative
//                from the end), [*], [?(@.path OP value)] with == != and a JSON value or a 'text'
//
// Several values of one expression are printed with blanks between them; texts bare, everything else as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::cli {

class JsonPath {
 public:
  // Errors: invalid USAGE that names the position.
  static Result<JsonPath> parse(std::string_view text);
  // What the template makes of a document; steps to what is not there give nothing. `json` has to be well formed.
  std::string apply(std::string_view json) const;

 private:
  friend class JsonPathParser;
  struct Step {
    enum class Kind : uint8_t { kName, kIndex, kAll, kFilter } kind;
    std::string name;
    int64_t index = 0;
    std::vector<Step> filter_path;
    bool equal = true;
    std::string operand;  // JSON
  };
  struct Part {
    std::string text;  // literal, if there are no steps
    std::vector<Step> steps;
    bool is_expression = false;
  };
  static std::string values(const std::vector<Step>& steps, const void* root);
  static void walk(const std::vector<Step>& steps, size_t at, const void* value, std::vector<std::string>& out);

  std::vector<Part> parts_;
};

}  // namespace uccp::cli
