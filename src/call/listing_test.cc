#include "call/listing.h"

#include <gtest/gtest.h>

#include <map>

#include "base/bytes.h"
#include "call/contract.h"
#include "call/json_codec.h"

namespace uccp::call {
namespace {

constexpr int64_t kNowUs = 1'700'000'000'000'000;

const MessagePlan& service_plan() { return Contract::get().plan("uccp.v1.ServiceRegistration"); }

std::string item(std::string_view json) {
  auto wire = json_to_wire(service_plan(), json, {.keep_output_only = true});
  EXPECT_TRUE(wire.has_value()) << (wire ? "" : wire.error().to_string());
  return wire.value_or("");
}

bool matches(std::string_view filter, std::string_view json) {
  auto compiled = Filter::compile(service_plan(), filter);
  EXPECT_TRUE(compiled.has_value()) << filter << ": " << (compiled ? "" : compiled.error().to_string());
  return compiled && compiled->matches(item(json));
}

std::string error_of(std::string_view filter) {
  auto compiled = Filter::compile(service_plan(), filter);
  return compiled ? "compiled" : compiled.error().detail().fields.at(0).description;
}

constexpr std::string_view kWeb =
    R"({"id":"a","serviceName":"web","version":"1.2.0","address":"10.0.0.1","port":80,"region":"eu","draining":true,
        "labels":{"tier":"front","app.kubernetes.io/name":"shop"},"capabilities":["pay","refund"],
        "healthStatus":"DEGRADED"})";

TEST(Filter, ComparesEachKindOfField) {
  EXPECT_TRUE(matches("serviceName = web", kWeb));
  EXPECT_TRUE(matches("service_name=\"web\"", kWeb));
  EXPECT_FALSE(matches("serviceName != web", kWeb));
  EXPECT_TRUE(matches("port >= 80 AND port < 81", kWeb));
  EXPECT_FALSE(matches("port > 80", kWeb));
  EXPECT_TRUE(matches("draining = true", kWeb));
  EXPECT_TRUE(matches("healthStatus = DEGRADED", kWeb));
  EXPECT_FALSE(matches("healthStatus != HEALTH_STATUS_DEGRADED", kWeb));
  EXPECT_TRUE(matches("zone = \"\"", kWeb));
  EXPECT_FALSE(matches("zone:*", kWeb));
  EXPECT_TRUE(matches("region:*", kWeb));
  EXPECT_TRUE(matches("version < 1.3", kWeb));
}

TEST(Filter, WildcardsPartsListsAndLabels) {
  EXPECT_TRUE(matches("serviceName = w*", kWeb));
  EXPECT_TRUE(matches("address = *.1", kWeb));
  EXPECT_FALSE(matches("address = *.2", kWeb));
  EXPECT_TRUE(matches("address : 0.0", kWeb));
  EXPECT_TRUE(matches("capabilities:refund", kWeb));
  EXPECT_FALSE(matches("capabilities:void", kWeb));
  EXPECT_TRUE(matches("labels.tier = front", kWeb));
  EXPECT_TRUE(matches("labels:tier", kWeb));
  EXPECT_TRUE(matches("labels.app.kubernetes.io/name = shop", kWeb));
  EXPECT_TRUE(matches("labels.\"app.kubernetes.io/name\" = 'shop'", kWeb));
  EXPECT_FALSE(matches("labels.none = x", kWeb));
  EXPECT_TRUE(matches("labels.none != x", kWeb));
  EXPECT_FALSE(matches("labels.none:*", kWeb));
}

TEST(Filter, OrBindsStrongerThanAndAndASpaceIsAnd) {
  EXPECT_FALSE(matches("port = 1 AND port = 80 OR port = 80", kWeb));
  EXPECT_TRUE(matches("(port = 1 AND port = 80) OR port = 80", kWeb));
  EXPECT_TRUE(matches("port = 80 region = eu", kWeb));
  EXPECT_TRUE(matches("NOT (port = 1 OR region = us)", kWeb));
  EXPECT_FALSE(matches("-port = 80", kWeb));
  EXPECT_TRUE(matches("", kWeb));
}

TEST(Filter, ErrorsNameThePositionAndTheUsableFields) {
  EXPECT_NE(error_of("port = 80 AND metadata.x = 1").find("\"metadata.x\" is not a field to filter by"),
            std::string::npos);
  EXPECT_NE(error_of("nope = 1").find("serviceName"), std::string::npos);
  EXPECT_NE(error_of("port = 80 AND").find("expected a comparison at position 14"), std::string::npos);
  EXPECT_NE(error_of("port 80").find("expected one of = != < <= > >= : at position 6"), std::string::npos);
  EXPECT_NE(error_of("(port = 80").find("expected ')'"), std::string::npos);
  EXPECT_NE(error_of("port = eighty").find("port "), std::string::npos);
  EXPECT_NE(error_of("draining < true").find("has no order"), std::string::npos);
  EXPECT_NE(error_of("capabilities = pay").find("with ':'"), std::string::npos);
  EXPECT_NE(error_of("region = \"eu").find("does not end"), std::string::npos);
  EXPECT_NE(error_of(std::string(40, '(')).find("levels"), std::string::npos);
  std::string many = "port=1";
  for (int i = 0; i < 100; ++i) many += " OR port=1";
  EXPECT_NE(error_of(many).find("comparisons"), std::string::npos);
}

TEST(LabelSelector, TakesAllForms) {
  const auto holds = [](std::string_view text) {
    auto selector = LabelSelector::compile(text);
    EXPECT_TRUE(selector.has_value()) << text;
    return selector && selector->matches(item(kWeb), 12);
  };
  EXPECT_TRUE(holds(""));
  EXPECT_TRUE(holds("tier=front"));
  EXPECT_TRUE(holds("tier==front , env!=dev"));
  EXPECT_TRUE(holds("tier,!env"));
  EXPECT_TRUE(holds("tier in (back|front)"));
  EXPECT_TRUE(holds("tier in (back, front),app.kubernetes.io/name=shop"));
  EXPECT_FALSE(holds("tier notin (back,front)"));
  EXPECT_FALSE(holds("env"));
  EXPECT_EQ(LabelSelector::compile("tier in front").error().reason(), "SELECTOR_INVALID");
  EXPECT_EQ(LabelSelector::compile("a b").error().reason(), "SELECTOR_INVALID");
}

// RFC 4231, test cases 1 and 6.
TEST(PageToken, MacIsHmacSha256) {
  EXPECT_EQ(to_hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

// A list of services by key, through the method that lists them.
class ListTest : public ::testing::Test {
 protected:
  ListTest() : method_(*Contract::get().find("uccp.v1.ServiceDiscovery/ListServices")) {}

  Result<ListQuery> query(std::string_view request_json, int64_t now_us = kNowUs) {
    auto request = json_to_wire(*method_.request, request_json);
    EXPECT_TRUE(request.has_value());
    return compile_list(method_, *request,
                        {.signer = &signer_, .now = {now_us}, .scope = {"t", "n"}, .key_order = "createTime"});
  }
  // "a,b" of the page, with "+" if there is a next one.
  std::string page(std::string_view request_json, std::string* token = nullptr) {
    auto q = query(request_json);
    if (!q) return std::string(q.error().reason());
    auto p = paginate(*q, [this](std::string_view after, const VisitRow& visit) {
      for (auto it = rows_.upper_bound(std::string(after)); it != rows_.end(); ++it) {
        if (!visit(it->first, it->second)) return;
      }
    });
    if (!p) return std::string(p.error().reason());
    std::string out;
    for (const std::string& row : p->items) {
      const auto path = FieldPath::compile(service_plan(), "id");
      out.append(out.empty() ? "" : ",").append(get_string(*path, row).value_or("?"));
    }
    if (token != nullptr) *token = p->next_page_token;
    total_ = p->total;
    return out + (p->next_page_token.empty() ? "" : "+");
  }
  void add(const std::string& id, int port, std::string_view region) {
    rows_[id] = item(R"({"id":")" + id + R"(","port":)" + std::to_string(port) + R"(,"region":")" +
                     std::string(region) + "\"}");
  }
  std::string with_token(std::string rest, const std::string& token) {
    return "{" + rest + (rest.empty() ? "" : ",") + R"("pageToken":")" + token + "\"}";
  }

  const Method& method_;
  PageTokenSigner signer_{"cluster key"};
  std::map<std::string, std::string> rows_;
  int64_t total_ = 0;
};

TEST_F(ListTest, PagesFollowEachOtherInKeyOrder) {
  for (const char* id : {"a", "b", "c", "d", "e"}) add(id, 1, "eu");
  std::string token;
  EXPECT_EQ(page(R"({"pageSize":2})", &token), "a,b+");
  // A row that comes in between is seen, one that goes away does not shift the rest.
  add("b2", 1, "eu");
  rows_.erase("a");
  EXPECT_EQ(page(with_token(R"("pageSize":3)", token), &token), "b2,c,d+");
  EXPECT_EQ(page(with_token("", token), &token), "e");
  EXPECT_EQ(token, "");
}

TEST_F(ListTest, AChangedQueryOrForgedOrOldTokenIsRefused) {
  for (const char* id : {"a", "b", "c"}) add(id, 1, "eu");
  std::string token;
  EXPECT_EQ(page(R"({"pageSize":1,"filter":"region = eu"})", &token), "a+");
  EXPECT_EQ(page(with_token(R"("filter":"region = us")", token)), "PAGE_TOKEN_INVALID");
  EXPECT_EQ(page(with_token("", token)), "PAGE_TOKEN_INVALID");
  EXPECT_EQ(page(with_token(R"("filter":"region = eu")", token)), "b,c");
  std::string forged = token;
  forged[5] = forged[5] == 'A' ? 'B' : 'A';
  EXPECT_EQ(page(with_token(R"("filter":"region = eu")", forged)), "PAGE_TOKEN_INVALID");
  auto late = query(with_token(R"("filter":"region = eu")", token), kNowUs + (kPageTokenTtlMs + 1000) * 1000);
  EXPECT_EQ(late.error().reason(), "PAGE_TOKEN_INVALID");
}

TEST_F(ListTest, SortsByValuesThenKeyAcrossPages) {
  add("a", 3, "eu");
  add("b", 1, "us");
  add("c", 2, "eu");
  add("d", 1, "ap");
  std::string token;
  EXPECT_EQ(page(R"({"orderBy":"region desc, id"})"), "b,a,c,d");
  EXPECT_EQ(page(R"({"orderBy":"region desc","pageSize":2})", &token), "b,a+");
  EXPECT_EQ(page(with_token(R"("orderBy":"region desc","pageSize":2)", token)), "c,d");
  EXPECT_EQ(page(R"({"orderBy":"port"})"), "ORDER_BY_INVALID");
  EXPECT_EQ(page(R"({"orderBy":"id sideways"})"), "ORDER_BY_INVALID");
}

TEST_F(ListTest, AnOffsetSkipsMatchesAndThePagesBehindItGoOnByToken) {
  for (const char* id : {"a", "b", "c", "d", "e"}) add(id, 1, id[0] == 'b' ? "us" : "eu");
  std::string token;
  EXPECT_EQ(page(R"({"pageSize":2,"pageToken":"offset:1"})", &token), "b,c+");
  EXPECT_EQ(page(with_token(R"("pageSize":2)", token)), "d,e");
  EXPECT_EQ(page(R"({"filter":"region = eu","pageToken":"offset:1"})"), "c,d,e") << "only matches are counted";
  EXPECT_EQ(page(R"({"orderBy":"id desc","pageSize":2,"pageToken":"offset:1"})", &token), "d,c+");
  EXPECT_EQ(page(with_token(R"("orderBy":"id desc","pageSize":2)", token)), "b,a");
  EXPECT_EQ(page(R"({"pageToken":"offset:0","pageSize":1})"), "a+");
  EXPECT_EQ(page(R"({"pageToken":"offset:9"})"), "");
  EXPECT_EQ(page(R"({"orderBy":"id desc","pageToken":"offset:9"})"), "");
  EXPECT_EQ(page(R"({"countTotal":true,"pageToken":"offset:4"})"), "e");
  EXPECT_EQ(total_, 5);
  for (const char* wrong : {"offset:", "offset:-1", "offset:1x", "offset:10001", "offset:99999999999"}) {
    EXPECT_EQ(page(R"({"pageToken":")" + std::string(wrong) + "\"}"), "PAGE_TOKEN_INVALID") << wrong;
  }
}

TEST_F(ListTest, AnOffsetThatWouldLookAtTooManyRowsIsRefused) {
  for (size_t i = 0; i <= kListScanRowsMax; ++i) add("r" + std::to_string(100000 + i), 1, "eu");
  add("z", 1, "us");
  add("zz", 1, "us");
  EXPECT_EQ(page(R"({"filter":"region = us","pageToken":"offset:1"})"), "LIST_TOO_LARGE");
  EXPECT_EQ(page(R"({"pageSize":1,"pageToken":"offset:10000"})"), "r110000+");
}

TEST_F(ListTest, CountsFiltersAndProjects) {
  for (const char* id : {"a", "b", "c", "d"}) add(id, 1, id[0] < 'c' ? "eu" : "us");
  EXPECT_EQ(page(R"({"filter":"region = us","countTotal":true,"pageSize":1})"), "c+");
  EXPECT_EQ(total_, 2);
  auto q = query(R"({"fields":"id"})");
  ASSERT_TRUE(q.has_value());
  auto p = paginate(*q, [this](std::string_view, const VisitRow& visit) { visit("a", rows_["a"]); });
  ASSERT_EQ(p->items.size(), 1u);
  EXPECT_EQ(p->items[0], item(R"({"id":"a"})"));
  EXPECT_EQ(encode_page(method_, *p).substr(2), p->items[0]);
}

TEST_F(ListTest, SortingTooManyRowsIsRefusedUnlessTheFilterNarrowsThem) {
  for (size_t i = 0; i <= kListSortRowsMax; ++i) add("r" + std::to_string(100000 + i), 1, "eu");
  EXPECT_EQ(page(R"({"orderBy":"region"})"), "LIST_TOO_LARGE");
  EXPECT_EQ(page(R"({"orderBy":"region","filter":"id = r100001"})"), "r100001");
}

}  // namespace
}  // namespace uccp::call
