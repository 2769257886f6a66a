// The topics and subscriptions of the event bus in the group core: what there is, not what is published. Pure: runs on
// the loop, inside apply.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/events_state.pb.h"

namespace uccp::events {

using internal::v1::SubscriptionRow;
using internal::v1::TopicRow;

inline constexpr std::string_view kTopicsDomain = "topics";
// Changes of topics: TopicRow, kind TopicChange, key the name. Of subscriptions: SubscriptionRow.
inline constexpr std::string_view kTopicChanges = "topics";
inline constexpr std::string_view kSubscriptionChanges = "subscriptions";
enum class TopicChange : uint8_t { kSet = 1, kDeleted = 2 };

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::TableId kTopicTable = 176;         // name: TopicRow
inline constexpr machine::TableId kSubscriptionTable = 177;  // name: SubscriptionRow
inline constexpr machine::TableId kEventCountTable = 178;    // what is counted: u64

inline constexpr machine::Table<TopicRow> kTopics{kTopicTable};
inline constexpr machine::Table<SubscriptionRow> kSubscriptions{kSubscriptionTable};
inline constexpr machine::BytesTable kEventCounts{kEventCountTable};
// The greatest number that a topic may have in this state of the core group. Numbers grow.
uint64_t newest_number(const machine::GroupView& core);

class TopicsState final : public machine::Domain {
 public:
  std::string_view name() const override { return kTopicsDomain; }
  // As events_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

// Visits topics behind `after` in the order of their rows: by name in one namespace, by namespace and name if that of
// the scope is "-". A position is what `after` may be.
using VisitTopic = std::function<bool(std::string_view position, const machine::Scope& at, const TopicRow& row)>;
void scan_topics(const machine::KeyReader& state, const machine::Scope& scope, std::string_view after,
                 const VisitTopic& visit);
using VisitSubscription =
    std::function<bool(std::string_view position, const machine::Scope& at, const SubscriptionRow& row)>;
void scan_subscriptions(const machine::KeyReader& state, const machine::Scope& scope, std::string_view after,
                        const VisitSubscription& visit);
// Topics of a namespace; of all of the tenant if none is named.
uint64_t topics_of(const machine::KeyReader& core, const machine::Scope& scope);
// Whether a quota has room for one topic more. Errors: exhausted QUOTA_TOPICS_EXHAUSTED.
Status check_topic_quota(const machine::KeyReader& core, const std::string& tenant,
                         const internal::v1::TopicQuota& quota);
Status topic_not_found(std::string_view name);
Status subscription_not_found(std::string_view name);

struct TopicLimits {
  uint64_t message_bytes_max = 1u << 20;
  int32_t partitions_max = 256;
};
// A topic as it is made: all defaults filled in. Errors: invalid FIELD_INVALID.
Result<v1::Topic> with_defaults(v1::Topic topic, const TopicLimits& limits);
// The same for an update: fields that are named and valid. `paths` gets the names of the fields that change.
Status check_update(const v1::UpdateTopicRequest& request, const TopicLimits& limits, std::vector<std::string>& paths);
// What the groups bus-* have to know of it.
internal::v1::BusSettings settings_of(const v1::Topic& topic);
// "a.*.>" against "a.b.c".
bool matches_pattern(std::string_view pattern, std::string_view name);
inline bool has_wildcard(std::string_view pattern) { return pattern.find_first_of("*>") != std::string_view::npos; }

}  // namespace uccp::events
