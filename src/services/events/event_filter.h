// The condition of a subscriber: the filter of lists over an event, which also looks into a content that is JSON:
// `json`, or `text` or `data` that is a JSON text. What is none has no members. Immutable once made; any thread.
//
// A match costs at most one pass over the content to read it, and one for each of at most 16 comparisons; a thread
// keeps what reading the largest content took, which is bounded by the largest event.
#pragma once

#include <string_view>

#include "call/listing_filter.h"

namespace uccp::events {

class EventFilter {
 public:
  // Errors: invalid FILTER_INVALID.
  static Result<EventFilter> compile(std::string_view text);

  // Of a serialized Event.
  bool matches(std::string_view event) const;

 private:
  call::Filter filter_;
};

}  // namespace uccp::events
