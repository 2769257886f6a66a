// Caller: one invocation's calls to the cluster: which node, how often, with what metadata.
//
// A read, or a change with a deduplication key, is sent again with the same bytes when no answer came; then the server
// tells a repeat from a second change. Streams go on behind the last cursor.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "call/method.h"
#include "cli/io.h"
#include "cli/settings.h"
#include "cli/transport.h"

namespace uccp::cli {

class Caller {
 public:
  static constexpr int kTriesMax = 3;            // rounds over all nodes
  static constexpr int64_t kBackoffMs = 200;     // after the first round; doubles
  static constexpr int64_t kTimeoutMs = 60'000;  // of a call that neither waits nor streams
  static constexpr int kStreamFailuresMax = 20;  // in a row, without an item in between

  // Both must outlive the caller.
  Caller(const Settings& settings, const Io& io, Connect connect)
      : settings_(settings), io_(io), connect_(std::move(connect)) {}

  // Puts namespace and, for a change, a deduplication key into the request, unless they are there.
  std::string prepared(const call::Method& method, std::string request);

  // One answer. `request` as prepared() left it. Errors: those of the method and of the connection.
  Result<std::string> unary(const call::Method& method, const std::string& request);

  // Hands each item to `on_item` until that answers false, or the stream ends for good. An item whose `end` is set is
  // handed over too, except when the stream goes on elsewhere. Errors: those of the method and of the connection;
  // conflict STREAM_COMPACTED, permission STREAM_REVOKED.
  using OnItem = std::function<bool(const std::string& item)>;
  Status stream(const call::Method& method, std::string request, const OnItem& on_item);

  // Follows the pages of a list. `limit` 0: all. Answers the responses; the items of the last may be more than wanted.
  using OnPage = std::function<void(const std::string& response)>;
  struct PageRequest {
    std::string request;
    uint64_t limit = 0;
    bool has_page_size = false;
  };
  // Answers the token of the page that was left out because of the limit; empty: there is none.
  Result<std::string> pages(const call::Method& method, PageRequest request, const OnPage& on_page);

  // The deduplication key of the last change, for hints.
  const std::string& request_id() const { return request_id_; }

 private:
  // Read once. Errors: as load_context().
  const Result<Context>& context();
  Result<Transport*> transport();
  CallOptions options_for(const call::Method& method) const;
  // What became of one opened stream.
  struct StreamRun {
    Status status;
    bool progressed = false;
    bool finished = false;
  };
  StreamRun run_stream(const call::Method& method, const std::string& request, const OnItem& on_item,
                       std::string& cursor);

  const Settings& settings_;
  const Io& io_;
  Connect connect_;
  std::optional<Result<Context>> context_;
  std::unique_ptr<Transport> transport_;
  std::string request_id_;
};

// The reason in the `end` of a stream's item ("COMPLETED"); empty for other items.
std::string end_reason(const call::Method& method, std::string_view item);

}  // namespace uccp::cli
