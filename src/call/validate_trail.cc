#include "call/validate_trail.h"

#include <fmt/format.h>

#include "call/json_codec_text.h"

namespace uccp::call {

std::string Trail::text() const {
  std::string text = prefix_;
  for (const Step& step : steps_) {
    if (step.field != nullptr) {
      if (!text.empty()) text.push_back('.');
      text.append(step.field->json_name);
    }
    if (step.keyed) {
      // A key may be as long as a message.
      text.append("[").append(excerpt(step.key)).append("]");
    } else if (step.index >= 0) {
      text.append(fmt::format("[{}]", step.index));
    }
  }
  return text;
}

bool Trail::redacted() const {
  for (const Step& step : steps_) {
    if (step.field != nullptr && step.field->redact) return true;
  }
  return false;
}

void Trail::violate_at(std::string path, std::string description, std::string example) {
  if (++count_ <= kViolationsMax) violations_.push_back({std::move(path), std::move(description), std::move(example)});
}

Status Trail::status() const {
  if (clean()) return Status::ok();
  const FieldViolation& first = violations_.front();
  std::string message =
      first.field.empty() ? "the request " + first.description : first.field + " " + first.description;
  if (!first.example.empty()) message.append(", for example ").append(first.example);
  if (count_ > 1) message.append(fmt::format("; {} more field{} wrong", count_ - 1, count_ == 2 ? " is" : "s are"));
  Status status(Code::kInvalid, "FIELD_INVALID", std::move(message));
  for (const FieldViolation& violation : violations_) {
    (void)std::move(status).with_field(violation.field, violation.description, violation.example);
  }
  return status;
}

}  // namespace uccp::call
