// A Redis server as a place behind the disk.
#include <algorithm>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>

#include "runtime/blocking_stream.h"
#include "shm/redis_reply.h"
#include "shm/tier.h"

namespace uccp::shm {
namespace {

constexpr size_t kReadBytes = 1u << 20;
constexpr size_t kRemovedMax = 1000;  // keys in one command
constexpr const char* kScanCount = "1000";
constexpr int64_t kDatabaseMax = 9999;

class RedisTier final : public Tier {
 public:
  RedisTier(TierOptions options, std::string name, std::string address, std::string database,
            runtime::StreamOptions stream)
      : options_(std::move(options)),
        name_(std::move(name)),
        address_(std::move(address)),
        database_(std::move(database)),
        stream_options_(std::move(stream)) {}

  const std::string& name() const override { return name_; }

  Status put(const std::string& key, std::string_view content) override {
    UCCP_RETURN_IF_ERROR(ask({"SET", key, content}));
    return {};
  }

  Result<std::string> get(const std::string& key) override {
    UCCP_TRY(RedisReply reply, ask({"GET", key}));
    if (reply.kind == RedisReply::Kind::kBytes) return std::move(reply.text);
    return fail(Code::kNotFound, "OBJECT_MISSING", name_ + " has no " + key);
  }

  Status remove(const std::vector<std::string>& keys) override {
    for (size_t at = 0; at < keys.size(); at += kRemovedMax) {
      std::vector<std::string_view> words = {"DEL"};
      words.insert(words.end(), keys.begin() + static_cast<std::ptrdiff_t>(at),
                   keys.begin() + static_cast<std::ptrdiff_t>(std::min(keys.size(), at + kRemovedMax)));
      UCCP_RETURN_IF_ERROR(ask(words));
    }
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& prefix) override {
    const std::string pattern = prefix + "*";
    std::string cursor = "0";
    do {
      UCCP_TRY(const RedisReply reply, ask({"SCAN", cursor, "MATCH", pattern, "COUNT", kScanCount}));
      if (reply.list.size() != 2) return std::unexpected(failure("it does not answer SCAN as Redis does"));
      cursor = reply.list[0].text;
      std::vector<std::string> found;
      for (const RedisReply& one : reply.list[1].list) found.push_back(one.text);
      if (!found.empty()) return found;
    } while (cursor != "0");
    return std::vector<std::string>();
  }

 private:
  Status failure(std::string_view why) const {
    return Status(Code::kUnavailable, "TIER_UNAVAILABLE", name_ + ": " + std::string(why));
  }

  Result<RedisReply> ask(const std::vector<std::string_view>& words) {
    const std::lock_guard lock(mutex_);
    if (!stream_) UCCP_RETURN_IF_ERROR(connect());
    auto reply = exchange(words);
    // An error of the connection: the next one begins anew. What Redis says itself leaves it as it is.
    if (!reply && reply.error().reason() == "TIER_UNAVAILABLE") stream_.reset();
    return reply;
  }

  Status connect() {
    auto connected = runtime::BlockingStream::connect(address_, stream_options_);
    if (!connected) return failure(connected.error().message());
    stream_.emplace(std::move(*connected));
    buffer_.clear();
    const auto begin = [&]() -> Status {
      if (!options_.secret.empty()) {
        std::vector<std::string_view> words = {"AUTH", options_.secret};
        if (!options_.user.empty()) words.insert(words.begin() + 1, options_.user);
        UCCP_RETURN_IF_ERROR(exchange(words));
      }
      if (database_ != "0") UCCP_RETURN_IF_ERROR(exchange({"SELECT", database_}));
      return {};
    };
    Status status = begin();
    if (!status.is_ok()) stream_.reset();
    return status;
  }

  Result<RedisReply> exchange(const std::vector<std::string_view>& words) {
    if (Status sent = stream_->write(redis_command(words)); !sent.is_ok())
      return std::unexpected(failure(sent.message()));
    while (true) {
      std::string_view rest = buffer_;
      auto reply = take_redis_reply(rest);
      if (!reply) return std::unexpected(failure(reply.error().message()));
      if (*reply) {
        buffer_.erase(0, buffer_.size() - rest.size());
        if ((*reply)->kind != RedisReply::Kind::kError) return std::move(**reply);
        return std::unexpected(refusal((*reply)->text));
      }
      const size_t had = buffer_.size();
      buffer_.resize(had + kReadBytes);
      const auto got = stream_->read_some(buffer_.data() + had, kReadBytes);
      buffer_.resize(had + got.value_or(0));
      if (!got) return std::unexpected(failure(got.error().message()));
    }
  }

  Status refusal(const std::string& text) const {
    const std::string message = name_ + ": " + text;
    if (text.starts_with("OOM")) return Status(Code::kExhausted, "TIER_FULL", message);
    for (const char* one : {"NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password"})
      if (text.starts_with(one)) return Status(Code::kPermission, "TIER_REFUSED", message);
    if (text.starts_with("LOADING") || text.starts_with("MISCONF") || text.starts_with("READONLY"))
      return failure(text);
    return Status(Code::kFailedPrecondition, "TIER_MISCONFIGURED", message);
  }

  const TierOptions options_;
  const std::string name_, address_, database_;
  const runtime::StreamOptions stream_options_;
  std::mutex mutex_;
  std::optional<runtime::BlockingStream> stream_;
  std::string buffer_;
};

}  // namespace

Result<std::unique_ptr<Tier>> open_redis_tier(const TierOptions& options, std::string_view rest, bool tls) {
  const auto invalid = [&](const std::string& why) {
    return fail(Code::kInvalid, "TIER_INVALID", "\"" + options.url + "\" is no address of a Redis server: " + why);
  };
  TierOptions own = options;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    own.user = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    if (own.user.find(':') != std::string::npos) return invalid("a password is no part of it");
  }
  const size_t slash = rest.find('/');
  const std::string address(rest.substr(0, slash));
  std::string database = slash == std::string_view::npos ? "0" : std::string(rest.substr(slash + 1));
  if (database.empty()) database = "0";
  if (database.size() > 4 || !std::ranges::all_of(database, [](char c) { return c >= '0' && c <= '9'; }))
    return invalid("the database is a number from 0 to " + std::to_string(kDatabaseMax));
  const auto where = runtime::parse_host_port(address);
  if (!where) return invalid(std::string(where.error().message()));
  runtime::StreamOptions stream{.timeout_ms = options.timeout_ms};
  if (tls) {
    std::ifstream file(options.ca_file);
    std::ostringstream pem;
    pem << file.rdbuf();
    if (!file || pem.str().empty()) return invalid("with TLS a file with its authorities is needed");
    UCCP_TRY(stream.tls, runtime::make_client_context({.ca_pem = pem.str()}));
    stream.server_name = where->host;
  }
  return std::make_unique<RedisTier>(std::move(own), (tls ? "rediss://" : "redis://") + address, address,
                                     std::move(database), std::move(stream));
}

}  // namespace uccp::shm
