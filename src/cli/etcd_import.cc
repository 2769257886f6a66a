// `uccp-cli etcd import`: keys, values and leases of an etcd into the key-value store.
//
// Keys are written in their order, many in one transaction. After each transaction the state file has the last key, so
// a repeat of the command goes on there; writing a pair twice changes nothing that matters. At the end both sides are
// read again and compared.
#include <algorithm>
#include <charconv>
#include <map>

#include "base/bytes.h"
#include "cli/commands.h"
#include "cli/etcd_source.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::cli {
namespace {

constexpr size_t kPairsMax = 100;       // in one transaction; the server takes 128
constexpr size_t kBytesMax = 1u << 20;  // of one transaction; the server takes 1.5 MiB
constexpr size_t kShownDifferences = 10;
constexpr int64_t kProgressUs = 1'000'000;
constexpr std::string_view kStateHead = "uccp-cli etcd import 1\n";
constexpr std::string_view kUsage =
    "usage: uccp-cli etcd import (--endpoint URL | --file SNAPSHOT) [--prefix KEYS] [--to PREFIX] [--state FILE]\n\n"
    "  --endpoint URL     a live etcd: http://HOST:PORT, or https://HOST:PORT with\n"
    "  --etcd-ca FILE       its authority, PEM,\n"
    "  --etcd-cert FILE     and, if it asks for one, a client certificate\n"
    "  --etcd-key FILE      with its key\n"
    "  --file SNAPSHOT    a file of `etcdctl snapshot save`\n"
    "  --prefix KEYS      only keys that begin so\n"
    "  --to PREFIX        written in place of --prefix; default: the same keys\n"
    "  --state FILE       how far it came, to go on after an interruption; default etcd-import.state, removed at the "
    "end\n"
    "  --no-verify        do not read and compare both sides at the end\n";

struct ImportOptions {
  std::string endpoint, ca, cert, key, file, prefix;
  std::optional<std::string> to;
  std::string state = "etcd-import.state";
  bool verify = true;
};

std::vector<Flag> import_flags(ImportOptions& o) {
  const auto text = [](std::string name, std::string& to) {
    return Flag{.names = {std::move(name)}, .value_name = "TEXT", .set = [&to](std::string_view value) {
                  to = value;
                  return Status::ok();
                }};
  };
  std::vector<Flag> flags{text("endpoint", o.endpoint), text("etcd-ca", o.ca), text("etcd-cert", o.cert),
                          text("etcd-key", o.key),      text("file", o.file),  text("prefix", o.prefix),
                          text("state", o.state)};
  flags.push_back({.names = {"to"}, .value_name = "TEXT", .set = [&o](std::string_view value) {
                     o.to = value;
                     return Status::ok();
                   }});
  flags.push_back({.names = {"verify"}, .is_switch = true, .set = [&o](std::string_view value) {
                     o.verify = value == "true";
                     return Status::ok();
                   }});
  return flags;
}

class Import {
 public:
  Import(Session& session, ImportOptions options, std::unique_ptr<EtcdSource> source)
      : session_(session), options_(std::move(options)), source_(std::move(source)) {}

  Result<int> run() {
    UCCP_RETURN_IF_ERROR(write_all());
    if (!options_.verify) return finish("not verified");
    UCCP_RETURN_IF_ERROR(compare_all());
    if (different_ == 0) return finish("verified: both sides are the same");
    session_.io.err("error: " + std::to_string(different_) +
                    " keys differ, have been changed meanwhile, or are missing:\n" + differences_);
    return kExitError;
  }
  // Where an earlier run came to.
  Status resume(std::string_view state) {
    const auto line = [&state] {
      const size_t end = std::min(state.find('\n'), state.size());
      const std::string_view out = state.substr(0, end);
      state.remove_prefix(std::min(state.size(), end + 1));
      return out;
    };
    const std::string_view identity = line(), count = line(), last = line();
    if (identity != source_->identity()) {
      return Status(Code::kFailedPrecondition, "STATE_OF_ANOTHER",
                    "the state file " + options_.state + " is of an import from " + std::string(identity) +
                        ", not from " + source_->identity() + "; remove it to begin anew");
    }
    std::from_chars(count.data(), count.data() + count.size(), pairs_);
    for (size_t i = 0; i + 1 < last.size(); i += 2) {
      uint8_t byte = 0;
      std::from_chars(last.data() + i, last.data() + i + 2, byte, 16);
      last_ += static_cast<char>(byte);
    }
    session_.note("going on behind " + std::to_string(pairs_) + " keys");
    return Status::ok();
  }

 private:
  std::string target_of(const std::string& key) const {
    return options_.to ? *options_.to + key.substr(options_.prefix.size()) : key;
  }
  const call::Method& method(std::string_view name) const {
    return *session_.catalog.contract().find("uccp.v1.KeyValue/" + std::string(name));
  }

  Status write_all() {
    while (true) {
      UCCP_TRY(const auto pairs, source_->read(options_.prefix, last_));
      if (pairs.empty()) return Status::ok();
      size_t at = 0;
      while (at < pairs.size()) {
        v1::TxnRequest txn;
        size_t bytes = 0, used = at;
        for (; used < pairs.size() && used - at < kPairsMax; ++used) {
          const EtcdPair& pair = pairs[used];
          bytes += pair.key.size() + pair.value.size();
          if (used > at && bytes > kBytesMax) break;
          UCCP_TRY(const int64_t lease, lease_for(pair.lease));
          // A lease that has ended meanwhile took its keys with it.
          if (lease < 0) continue;
          v1::PutRequest& put = *txn.add_success()->mutable_put();
          put.set_key(target_of(pair.key));
          put.set_value(pair.value);
          put.set_lease(lease);
          bytes_ += pair.value.size();
        }
        UCCP_RETURN_IF_ERROR(commit(txn));
        at = used;
        last_ = pairs[used - 1].key;
        UCCP_RETURN_IF_ERROR(note_state());
      }
      show_progress(false);
    }
  }
  Status commit(const v1::TxnRequest& txn) {
    if (txn.success().empty()) return Status::ok();
    UCCP_TRY(const std::string bytes, session_.caller.unary(method("Txn"), txn.SerializeAsString()));
    pairs_ += static_cast<uint64_t>(txn.success_size());
    return Status::ok();
  }
  Status note_state() {
    return session_.io.write_file(options_.state, std::string(kStateHead) + source_->identity() + "\n" +
                                                      std::to_string(pairs_) + "\n" + to_hex(last_) + "\n");
  }
  void show_progress(bool last) {
    const int64_t now = session_.io.wall_us();
    if (!last && now - shown_us_ < kProgressUs) return;
    shown_us_ = now;
    session_.note(std::to_string(pairs_) + " keys, " + std::to_string(bytes_ >> 10) + " KiB written");
  }

  // The lease of the same number here; -1: it is gone there.
  Result<int64_t> lease_for(int64_t id) {
    if (id == 0) return 0;
    if (const auto known = leases_.find(id); known != leases_.end()) return known->second;
    UCCP_TRY(const int64_t ttl, source_->lease_ttl(id));
    if (ttl <= 0) return leases_[id] = -1;
    v1::GrantLeaseRequest grant;
    grant.set_id(id);
    grant.mutable_ttl()->set_seconds(ttl);
    auto made = session_.caller.unary(method("GrantLease"), grant.SerializeAsString());
    // From an earlier run.
    if (!made && made.error().code() != Code::kAlreadyExists) return std::unexpected(std::move(made.error()));
    return leases_[id] = id;
  }

  // Both sides in the order of keys.
  Status compare_all() {
    std::string after;
    while (true) {
      UCCP_TRY(const auto pairs, source_->read(options_.prefix, after));
      if (pairs.empty()) return Status::ok();
      for (size_t at = 0; at < pairs.size(); at += kPairsMax) {
        const size_t count = std::min(kPairsMax, pairs.size() - at);
        UCCP_RETURN_IF_ERROR(compare({pairs.data() + at, count}));
      }
      after = pairs.back().key;
    }
  }
  Status compare(std::span<const EtcdPair> pairs) {
    v1::TxnRequest reads;
    for (const EtcdPair& pair : pairs) reads.add_success()->mutable_range()->set_key(target_of(pair.key));
    UCCP_TRY(const std::string bytes, session_.caller.unary(method("Txn"), reads.SerializeAsString()));
    v1::TxnResponse answer;
    if (!answer.ParseFromString(bytes) || answer.responses_size() != static_cast<int>(pairs.size())) {
      return Status(Code::kInternal, "WIRE_INVALID", "the answer to a transaction cannot be read");
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto& found = answer.responses(static_cast<int>(i)).range();
      const bool leased = pairs[i].lease != 0;  // such keys may end at any time on either side
      if (leased && found.pairs().empty()) continue;
      if (found.pairs_size() == 1 && found.pairs(0).value() == pairs[i].value) {
        ++compared_;
        continue;
      }
      if (++different_ <= kShownDifferences) differences_ += "  " + target_of(pairs[i].key) + "\n";
    }
    return Status::ok();
  }

  Result<int> finish(const std::string& how) {
    static_cast<void>(session_.io.remove_file(options_.state));
    show_progress(true);
    session_.io.out("imported " + std::to_string(pairs_) + " keys from " + source_->identity() + "; " + how +
                    (options_.verify ? " (" + std::to_string(compared_) + " keys compared)" : "") + "\n");
    return kExitOk;
  }

  Session& session_;
  const ImportOptions options_;
  const std::unique_ptr<EtcdSource> source_;
  std::string last_;
  uint64_t pairs_ = 0, bytes_ = 0, compared_ = 0, different_ = 0;
  std::string differences_;
  std::map<int64_t, int64_t> leases_;
  int64_t shown_us_ = 0;
};

// What an earlier run left; empty: nothing.
Result<std::string> read_state(Session& session, const std::string& path) {
  if (!session.io.file_exists(path)) return std::string();
  UCCP_TRY(const std::string text, session.io.read_file(path));
  if (text.starts_with(kStateHead)) return text.substr(kStateHead.size());
  return fail(Code::kInvalid, "STATE_INVALID", path + " is no state file of an import; name another one with --state");
}

// "etcd N at revision M" -> M.
int64_t revision_in(std::string_view state) {
  const std::string_view line = state.substr(0, state.find('\n'));
  const size_t at = line.rfind(' ');
  int64_t revision = 0;
  if (line.starts_with("etcd ") && at != std::string_view::npos) {
    std::from_chars(line.data() + at + 1, line.data() + line.size(), revision);
  }
  return revision;
}

Result<std::unique_ptr<EtcdSource>> open_source(Session& session, const ImportOptions& o, std::string_view state) {
  if (!o.file.empty()) {
    UCCP_TRY(std::string file, session.io.read_file(o.file));
    return etcd_snapshot(std::move(file));
  }
  Context context;
  context.source = "--endpoint";
  std::string_view target = o.endpoint;
  context.plaintext = target.starts_with("http://");
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.starts_with(scheme)) target.remove_prefix(scheme.size());
  }
  while (target.ends_with('/')) target.remove_suffix(1);
  context.targets = {std::string(target)};
  for (const auto& [path, pem] :
       {std::pair{&o.ca, &context.ca_pem}, {&o.cert, &context.cert_pem}, {&o.key, &context.key_pem}}) {
    if (path->empty()) continue;
    UCCP_TRY(*pem, session.io.read_file(*path));
  }
  if (!context.plaintext && context.ca_pem.empty()) {
    return fail(usage_error("https needs --etcd-ca, the authority that signed the certificate of etcd"));
  }
  UCCP_TRY(auto transport, session.connect(context));
  return live_etcd(std::move(transport), revision_in(state));
}

}  // namespace

Result<int> run_etcd(Session& session, Args args) {
  ImportOptions options;
  const std::vector<Flag> extra = import_flags(options);
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> rest, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(kUsage);
    return kExitOk;
  }
  if (rest.size() != 1 || rest.front() != "import") return fail(usage_error("the one command of etcd is import"));
  if (options.endpoint.empty() == options.file.empty()) {
    return fail(usage_error("name where to import from: either --endpoint URL or --file SNAPSHOT"));
  }
  UCCP_TRY(const std::string state, read_state(session, options.state));
  UCCP_TRY(auto source, open_source(session, options, state));
  Import import(session, options, std::move(source));
  if (!state.empty()) UCCP_RETURN_IF_ERROR(import.resume(state));
  return import.run();
}

}  // namespace uccp::cli
