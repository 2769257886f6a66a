// What a subscriber's condition says of events, however their JSON is stored.
#include "services/events/event_filter.h"

#include <gtest/gtest.h>

#include "services/events/json_value.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {
namespace {

constexpr std::string_view kOrder =
    R"({"order":{"total":120.5,"state":"OPEN","paid":false,"note":null,"tags":["red",7,{"a":1}],"a b":{"c":1}},"n":"5"})";

// The same content in each way in which an event may have it.
std::vector<std::string> events_with(std::string_view json) {
  v1::Event as_json, as_text, as_data;
  *as_json.mutable_json() = *parse_json(json);
  as_text.set_text(std::string(json));
  as_data.set_data(std::string(json));
  for (v1::Event* event : {&as_json, &as_text, &as_data}) {
    event->set_type("order.created");
    (*event->mutable_headers())["region"] = "eu";
  }
  return {as_json.SerializeAsString(), as_text.SerializeAsString(), as_data.SerializeAsString()};
}

TEST(EventFilter, LooksIntoJsonHoweverItIsStored) {
  const std::pair<std::string_view, bool> cases[] = {
      {"json.order.total > 100", true},
      {"json.order.total <= 100", false},
      {"json.order.total = 120.5", true},
      {"json.order.total = \"120.5\"", false},
      {"json.order.state = OPEN", true},
      {"json.order.state != OPEN", false},
      {"json.order.state = O*", true},
      {"json.order.state : PE", true},
      {"json.order.paid = false", true},
      {"json.order.paid != false", false},
      {"json.order.paid = \"false\"", false},
      {"json.order.paid > 0", false},
      {"json.order.note = null", true},
      {"json.order.note : *", true},
      {"json.order.nothing : *", false},
      {"json.order.nothing = null", false},
      {"json.order.nothing != 1", true},
      {"json.order.nothing < 1", false},
      {"json.order.tags : red", true},
      {"json.order.tags : re", false},
      {"json.order.tags : 7", true},
      {"json.order.tags : 8", false},
      {"json.order.tags = red", false},
      {"json.order : state", true},
      {"json.order : total.x", false},
      {"json.order.\"a b\" : c", true},
      {"json.n = 5", true},
      {"json.n.x = 5", false},
      {"json.order.total > 100 AND headers.region = eu AND type = order.*", true},
      {"json.order.total > 100 AND headers.region = us", false},
      {"NOT json.order.total > 100", false},
  };
  const auto events = events_with(kOrder);
  for (const auto& [text, expected] : cases) {
    const auto filter = EventFilter::compile(text);
    ASSERT_TRUE(filter.has_value()) << text << filter.error().to_string();
    for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(filter->matches(events[i]), expected) << text << " " << i;
  }
}

TEST(EventFilter, WhatIsNoJsonHasNoMembers) {
  const auto is = *EventFilter::compile("json.a = 1");
  const auto is_not = *EventFilter::compile("json.a != 1");
  v1::Event event;
  EXPECT_FALSE(is.matches(event.SerializeAsString()));
  EXPECT_TRUE(is_not.matches(event.SerializeAsString()));
  for (const std::string text : {"", "plain", "{\"a\":1", "[{\"a\":1}]", "\xff"}) {
    event.set_data(text);
    EXPECT_FALSE(is.matches(event.SerializeAsString())) << text;
    EXPECT_TRUE(is_not.matches(event.SerializeAsString())) << text;
  }
  // Of the kinds of content the last one counts.
  event.set_text(R"({"a":1})");
  std::string twice = event.SerializeAsString();
  v1::Event other;
  *other.mutable_json() = *parse_json(R"({"a":2})");
  EXPECT_FALSE(is.matches(twice + other.SerializeAsString()));
}

TEST(EventFilter, SaysWhatIsWrong) {
  std::string many = "json.a = 1";
  for (int i = 0; i < 16; ++i) many += " OR json.a = 1";
  const std::pair<std::string, std::string> cases[] = {
      {many, "more than 16 comparisons look into a JSON value"},
      {"json..a = 1", "expected a key"},
      {"colour = red", "json.KEY"},
  };
  for (const auto& [text, what] : cases) {
    const auto filter = EventFilter::compile(text);
    ASSERT_FALSE(filter.has_value()) << text;
    EXPECT_EQ(filter.error().reason(), "FILTER_INVALID");
    EXPECT_NE(filter.error().message().find(what), std::string_view::npos) << filter.error().message();
  }
}

}  // namespace
}  // namespace uccp::events
