#include "services/events/topic_directory.h"

namespace uccp::events {

void TopicDirectory::find(const machine::Scope& scope, const std::string& name, const machine::ReadLevel& level,
                          Done done) {
  const bool fresh = level.kind == machine::ReadLevel::Kind::kLinearizable;
  reader_.read(kCoreGroup, level,
               [this, scope, name, fresh, done = std::move(done)](Result<machine::GroupView> view) mutable {
                 if (!view) return done(std::unexpected(std::move(view.error())));
                 auto row = kTopics.get(*view, scope, name);
                 if (row) return done(std::move(*row));
                 if (fresh) return done(fail(topic_not_found(name)));
                 find_fresh(scope, name, std::move(done));
               });
}

}  // namespace uccp::events
