#include "sim/cluster/kv_client.h"

#include <algorithm>

#include "call/contract.h"
#include "services/kv/kv_service.h"

namespace uccp::sim {
namespace {

constexpr int64_t kKeys = 8;
constexpr int64_t kDeadlineMs = 400;
// A compaction leaves so many revisions readable; some reads and watches ask for older ones.
constexpr int64_t kRevisionsKept = 60;

const call::Method* method(const char* rpc) { return call::Contract::get().find(kv::method_name(rpc)); }

template <typename Answer>
int64_t revision_of(const std::string& bytes) {
  Answer answer;
  return answer.ParseFromString(bytes) ? answer.revision() : 0;
}

int64_t revision_of_delete(const std::string& bytes) {
  v1::DeleteResponse answer;
  return answer.ParseFromString(bytes) && answer.deleted() > 0 ? answer.revision() : 0;
}

int64_t revision_of_txn(const std::string& bytes) {
  v1::TxnResponse answer;
  return answer.ParseFromString(bytes) && answer.succeeded() ? answer.revision() : 0;
}

}  // namespace

KvClient::KvClient(SimCluster& cluster, size_t number, uint64_t operations)
    : SimClient(cluster, "kv-" + std::to_string(number)), left_(operations) {}

void KvClient::start() {
  after_us(below(20'000), [this] { next(); });
}

std::string KvClient::any_key() { return "k" + std::to_string(below(kKeys)); }
std::string KvClient::fresh_value() { return name() + "." + std::to_string(++values_); }

void KvClient::next() {
  if (left_ == 0) return;
  const int64_t choice = below(100);
  if (choice < 35) return put();
  if (choice < 42) return erase();
  if (choice < 58) return transact();
  if (choice < 59) return compact();
  read();
}

void KvClient::put() {
  v1::PutRequest request;
  request.set_key(any_key());
  request.set_value(fresh_value());
  change("Put", request.SerializeAsString(), revision_of<v1::PutResponse>);
}

void KvClient::erase() {
  v1::DeleteRequest request;
  request.set_key(any_key());
  change("Delete", request.SerializeAsString(), revision_of_delete);
}

// Writes two keys if a third has the value that was seen there.
void KvClient::transact() {
  v1::TxnRequest request;
  auto& compare = *request.add_compare();
  compare.set_key(any_key());
  compare.set_result(v1::COMPARE_RESULT_EQUAL);
  compare.set_value(seen_value_);
  for (const int64_t first = below(kKeys - 1); const int64_t number : {first, first + 1}) {
    v1::PutRequest& put = *request.add_success()->mutable_put();
    put.set_key("k" + std::to_string(number));
    put.set_value(fresh_value());
  }
  change("Txn", request.SerializeAsString(), revision_of_txn);
}

void KvClient::change(const char* rpc, std::string request, int64_t (*revision_of)(const std::string& answer)) {
  ask({.method = method(rpc), .request = std::move(request), .deadline_ms = kDeadlineMs},
      [this, revision_of](const Result<machine::Applied>& result, int64_t called_us) {
        if (result) {
          if (const int64_t revision = revision_of(result->response); revision > 0) {
            const LogIndex index(static_cast<uint64_t>(revision));
            cluster_.checkers().kv_order.add({called_us, cluster_.now_us(), index, true});
          }
        } else if (result.error().code() != Code::kDeadline) {
          cluster_.checkers().violations.add("kv", name() + ": " + result.error().to_string());
        }
        completed();
      });
}

void KvClient::read() {
  const int64_t choice = below(10);
  ServiceCall call{.method = method("Range"), .deadline_ms = kDeadlineMs};
  using Kind = machine::ReadLevel::Kind;
  if (choice >= 5) call.level.kind = Kind::kLease;
  if (choice >= 7) call.level = machine::ReadLevel::bounded(50 + below(500));
  const bool whole = chance(0.5);
  const std::string from = whole ? "k" : any_key();
  v1::RangeRequest request;
  if (whole) request.set_prefix("k");
  else request.set_key(from);
  // Of what was, as far back as twice what is kept.
  const int64_t past = chance(0.2) ? std::max<int64_t>(0, seen_revision_ - below(2 * kRevisionsKept)) : 0;
  request.set_revision(past);
  call.request = request.SerializeAsString();
  const bool bounded = call.level.kind == Kind::kBounded;
  const std::string to = whole ? "l" : from + '\0';
  ask_any_node(std::move(call),
               [this, from, to, past, bounded](const Result<machine::Applied>& result, int64_t called_us) {
                 v1::RangeResponse answer;
                 if (result && answer.ParseFromString(result->response)) {
                   std::vector<KvChecker::Pair> pairs;
                   for (const auto& pair : answer.pairs())
                     pairs.push_back({pair.key(), pair.value(), pair.mod_revision()});
                   cluster_.checkers().kv.read(name(), past > 0 ? past : answer.revision(), from, to, pairs);
                   if (!bounded) {
                     const LogIndex index(static_cast<uint64_t>(answer.revision()));
                     cluster_.checkers().kv_order.add({called_us, cluster_.now_us(), index, false});
                   }
                   seen_revision_ = std::max(seen_revision_, answer.revision());
                   if (answer.pairs_size() > 0)
                     seen_value_ = answer.pairs(static_cast<int>(below(answer.pairs_size()))).value();
                 } else if (!result) {
                   read_failed(result.error(), past, bounded);
                 }
                 completed();
               });
}

void KvClient::read_failed(const Status& why, int64_t past, bool bounded) {
  if (why.code() == Code::kDeadline) return;
  if (why.reason() == "REVISION_COMPACTED") return cluster_.checkers().kv.refused(name(), past);
  // A node may not have what another one has shown.
  if (why.reason() == "REVISION_FUTURE" && bounded) return;
  cluster_.checkers().violations.add("kv", name() + ": " + why.to_string());
}

void KvClient::compact() {
  if (seen_revision_ <= kRevisionsKept) return read();
  v1::CompactRequest request;
  request.set_revision(seen_revision_ - kRevisionsKept);
  // Another client may have been faster.
  ask({.method = method("Compact"), .request = request.SerializeAsString(), .deadline_ms = kDeadlineMs},
      [this](const Result<machine::Applied>&, int64_t) { completed(); });
}

void KvClient::completed() {
  --left_;
  after_us(below(chance(0.05) ? 100'000 : 3'000), [this] { next(); });
}

}  // namespace uccp::sim
