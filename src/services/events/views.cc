#include "services/events/views.h"

#include <memory>
#include <utility>

#include "services/events/join.h"

namespace uccp::events {

void read_views(machine::Reader& reader, const call::CallPtr& call, const std::set<GroupId>& groups,
                std::move_only_function<void(const Views&)> done) {
  if (groups.empty()) return done({});
  auto views = std::make_shared<Views>();
  const auto join = Join::make(groups.size(), [call, views, done = std::move(done)](Status status) mutable {
    if (!status.is_ok()) return call->finish(std::move(status));
    done(*views);
  });
  for (const GroupId group : groups) {
    reader.read(group, call->read_level, [join, views, group](Result<machine::GroupView> view) {
      Status status = view ? Status::ok() : std::move(view.error());
      join->arrive(std::move(status), [&] {
        if (view) (*views)[group] = std::move(*view);
      });
    });
  }
}

}  // namespace uccp::events
