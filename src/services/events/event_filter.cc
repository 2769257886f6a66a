#include "services/events/event_filter.h"

#include <simdjson.h>

#include "call/contract.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

using call::JsonLeaf;
using simdjson::dom::element_type;

JsonLeaf leaf_of(const simdjson::dom::element& element) {
  JsonLeaf leaf;
  switch (element.type()) {
    case element_type::OBJECT: leaf.kind = JsonLeaf::Kind::kObject; break;
    case element_type::ARRAY: leaf.kind = JsonLeaf::Kind::kList; break;
    case element_type::NULL_VALUE: leaf.kind = JsonLeaf::Kind::kNull; break;
    case element_type::BOOL:
      leaf.kind = JsonLeaf::Kind::kBool;
      leaf.boolean = bool(element);
      break;
    case element_type::STRING:
      leaf.kind = JsonLeaf::Kind::kText;
      leaf.text = std::string_view(element);
      break;
    default: leaf.kind = JsonLeaf::Kind::kNumber; leaf.number = double(element);
  }
  return leaf;
}

// A JSON text; one that cannot be read has nothing.
class TextJson final : public call::JsonDocument {
 public:
  explicit TextJson(std::string_view text) {
    static thread_local simdjson::dom::parser parser;
    // Content that is empty may be no address either.
    readable_ = !text.empty() && parser.parse(text.data(), text.size()).get(root_) == simdjson::SUCCESS;
  }

  JsonLeaf find(std::span<const std::string> keys, const VisitItem& item) const override {
    if (!readable_) return {};
    simdjson::dom::element at = root_;
    for (const std::string& key : keys) {
      if (at.type() != element_type::OBJECT || at.at_key(key).get(at) != simdjson::SUCCESS) return {};
    }
    const JsonLeaf leaf = leaf_of(at);
    if (leaf.kind != JsonLeaf::Kind::kList) return leaf;
    for (const simdjson::dom::element one : simdjson::dom::array(at)) {
      if (!item(leaf_of(one))) break;
    }
    return leaf;
  }

 private:
  simdjson::dom::element root_;
  bool readable_ = false;
};

}  // namespace

Result<EventFilter> EventFilter::compile(std::string_view text) {
  EventFilter filter;
  UCCP_TRY(filter.filter_, call::Filter::compile(call::Contract::get().plan("uccp.v1.Event"), text));
  return filter;
}

bool EventFilter::matches(std::string_view event) const {
  if (!filter_.reads_json()) return filter_.matches(event);
  // Of the kinds of content the last one counts.
  call::WireField content, field;
  call::WireReader reader(event);
  while (reader.next(field)) {
    if (field.number >= v1::Event::kDataFieldNumber && field.number <= v1::Event::kJsonFieldNumber) content = field;
  }
  if (content.number == v1::Event::kJsonFieldNumber) {
    const call::WireJson json(content.bytes);
    return filter_.matches(event, &json);
  }
  const TextJson json(content.bytes);
  return filter_.matches(event, &json);
}

}  // namespace uccp::events
