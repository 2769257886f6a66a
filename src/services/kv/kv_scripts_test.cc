// Runs tests/scripts/kv/*.txt: commands, "----", what they resulted in.
// UCCP_REWRITE=1 writes the transcripts anew; the diff is what gets reviewed.
//
//   put KEY VALUE [lease=ID] [match=REV] [keep-value] [keep-lease] [prev]
//   get KEY [at=REV] | range [KEY] [to=KEY] [prefix=P] [at=REV] [limit=N] [by=ORDER] [desc] [keys] [count]
//   delete [KEY] [to=KEY] [prefix=P] [prev] | history KEY | rollback [KEY] [prefix=P] to-revision=REV
//   txn [if KEY ATTRIBUTE OP VALUE [; ...]] then OPERATION [; ...] [else OPERATION [; ...]]   (operations as above)
//   compact REV | sweep N | grant MS [id=N] | revoke ID | advance MS | log from=REV [prefix=P] | store
#include <map>
#include <sstream>

#include "base/test_transcripts.h"
#include "services/kv/kv_history.h"
#include "services/kv/kv_past.h"
#include "services/kv/kv_test_lab.h"

namespace uccp::kv {
namespace {

// The words of one command: VERB positional... name=value... flag...
struct Words {
  explicit Words(const std::string& line) {
    std::istringstream in(line);
    in >> verb;
    for (std::string word; in >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) positional.push_back(word);
      else options[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  bool has(std::string_view flag) const { return std::ranges::find(positional, flag) != positional.end(); }
  std::string text(const std::string& name) const {
    const auto it = options.find(name);
    return it == options.end() ? "" : it->second;
  }
  int64_t number(const std::string& name) const { return options.contains(name) ? std::stoll(options.at(name)) : 0; }
  // The first positional word, unless it is a flag.
  std::string key() const {
    static constexpr std::string_view kFlags[] = {"prev", "desc", "keys", "count", "keep-value", "keep-lease"};
    if (positional.empty() || std::ranges::find(kFlags, positional[0]) != std::end(kFlags)) return "";
    return positional[0];
  }

  std::string verb;
  std::vector<std::string> positional;
  std::map<std::string, std::string> options;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

template <typename Request>
void set_range(Request& request, const Words& words) {
  request.set_key(words.key());
  request.set_range_end(words.text("to") == "end" ? std::string(1, '\0') : words.text("to"));
  request.set_prefix(words.text("prefix"));
}

v1::PutRequest put_of(const Words& words) {
  v1::PutRequest put;
  put.set_key(words.key());
  if (words.positional.size() > 1 && !words.has("keep-value")) put.set_value(words.positional[1]);
  put.set_lease(words.number("lease"));
  put.set_if_match(words.text("match"));
  put.set_ignore_value(words.has("keep-value"));
  put.set_ignore_lease(words.has("keep-lease"));
  put.set_prev_kv(words.has("prev"));
  return put;
}

v1::DeleteRequest delete_of(const Words& words) {
  v1::DeleteRequest request;
  set_range(request, words);
  request.set_prev_kv(words.has("prev"));
  return request;
}

v1::RangeRequest range_of_words(const Words& words) {
  v1::RangeRequest request;
  set_range(request, words);
  request.set_revision(words.number("at"));
  request.set_limit(words.number("limit"));
  request.set_descending(words.has("desc"));
  request.set_keys_only(words.has("keys"));
  request.set_count_only(words.has("count"));
  v1::KeyOrder order = v1::KEY_ORDER_UNSPECIFIED;
  if (const std::string by = words.text("by"); !by.empty()) {
    EXPECT_TRUE(v1::KeyOrder_Parse("KEY_ORDER_" + by, &order)) << by;
  }
  request.set_order_by(order);
  return request;
}

v1::KeyCompare compare_of(const std::string& text) {
  std::istringstream in(text);
  std::string key, attribute, relation, value;
  in >> key >> attribute >> relation >> value;
  v1::KeyCompare compare;
  if (key.ends_with('*')) compare.set_prefix(key.substr(0, key.size() - 1));
  else compare.set_key(key);
  compare.set_result(relation == "="   ? v1::COMPARE_RESULT_EQUAL
                     : relation == ">" ? v1::COMPARE_RESULT_GREATER
                     : relation == "<" ? v1::COMPARE_RESULT_LESS
                                       : v1::COMPARE_RESULT_NOT_EQUAL);
  if (attribute == "value") compare.set_value(value);
  else if (attribute == "version") compare.set_version(std::stoll(value));
  else if (attribute == "create") compare.set_create_revision(std::stoll(value));
  else if (attribute == "mod") compare.set_mod_revision(std::stoll(value));
  else if (attribute == "lease") compare.set_lease(std::stoll(value));
  return compare;
}

class Script {
 public:
  std::string run(const std::string& line) {
    out_.clear();
    const Words words(line);
    if (words.verb == "put") tell(lab_.put(put_of(words)));
    else if (words.verb == "get" || words.verb == "range") tell(lab_.range(range_of_words(words)));
    else if (words.verb == "delete") tell(lab_.erase(delete_of(words)));
    else if (words.verb == "txn") transact(line.substr(3));
    else if (words.verb == "compact") tell(lab_.compact(std::stoll(words.positional.at(0))));
    else if (words.verb == "sweep")
      say(std::to_string(lab_.sweep(static_cast<uint32_t>(std::stoul(words.positional.at(0))))) + " steps");
    else if (words.verb == "grant")
      say("lease " + std::to_string(lab_.grant(std::stoll(words.positional.at(0)), words.number("id"))));
    else if (words.verb == "revoke") revoke(words);
    else if (words.verb == "advance") lab_.advance(std::stoll(words.positional.at(0)));
    else if (words.verb == "log") show_log(words);
    else if (words.verb == "history") show_history(words.key());
    else if (words.verb == "rollback") roll_back(words);
    else if (words.verb == "store") show_store();
    else ADD_FAILURE() << "unknown command: " << line;
    return out_;
  }

 private:
  void say(const std::string& line) { out_ += line + "\n"; }
  static std::string text(const v1::KeyValuePair& p) {
    return p.key() + "=" + p.value() + " created=" + std::to_string(p.create_revision()) +
           " changed=" + std::to_string(p.mod_revision()) + " version=" + std::to_string(p.version()) +
           (p.lease() != 0 ? " lease=" + std::to_string(p.lease()) : "");
  }
  void tell(const Status& status) { say(status.is_ok() ? "ok" : std::string(status.reason())); }
  template <typename Response>
  void tell(const Result<Response>& response) {
    if (!response) return say(std::string(response.error().reason()));
    tell(*response, "");
  }
  void tell(const v1::PutResponse& r, const std::string& indent) {
    say(indent + "put at " + std::to_string(r.revision()) + (r.has_prev_kv() ? ", before: " + text(r.prev_kv()) : ""));
  }
  void tell(const v1::RangeResponse& r, const std::string& indent) {
    for (const auto& pair : r.pairs()) say(indent + text(pair));
    say(indent + std::to_string(r.pairs_size()) + " of " +
        (r.count() == 0 && r.more() ? "more" : std::to_string(r.count())) + " at " + std::to_string(r.revision()) +
        (r.more() ? ", more" : "") + (r.next_key().empty() ? "" : " from " + r.next_key()));
  }
  void tell(const v1::DeleteResponse& r, const std::string& indent) {
    say(indent + "deleted " + std::to_string(r.deleted()) + " at " + std::to_string(r.revision()));
    for (const auto& pair : r.prev_kvs()) say(indent + "  before: " + text(pair));
  }
  void tell(const v1::TxnResponse& r, const std::string& indent) {
    say(indent + (r.succeeded() ? "success" : "failure") + " at " + std::to_string(r.revision()));
    for (const auto& result : r.responses()) {
      if (result.has_put()) tell(result.put(), indent + "  ");
      else if (result.has_range()) tell(result.range(), indent + "  ");
      else if (result.has_delete_()) tell(result.delete_(), indent + "  ");
      else tell(result.txn(), indent + "  ");
    }
  }

  static void add(google::protobuf::RepeatedPtrField<v1::TxnOperation>& list, const std::string& text) {
    for (const std::string& part : split(text, ';')) {
      const Words words(part);
      if (words.verb == "put") *list.Add()->mutable_put() = put_of(words);
      else if (words.verb == "delete") *list.Add()->mutable_delete_() = delete_of(words);
      else if (words.verb == "get" || words.verb == "range") *list.Add()->mutable_range() = range_of_words(words);
      else ADD_FAILURE() << "unknown operation: " << part;
    }
  }
  void transact(const std::string& text) {
    const size_t condition = text.find(" if "), success = text.find(" then "), failure = text.find(" else ");
    v1::TxnRequest request;
    if (condition != std::string::npos) {
      for (const std::string& part : split(text.substr(condition + 4, success - condition - 4), ';')) {
        *request.add_compare() = compare_of(part);
      }
    }
    if (success != std::string::npos) add(*request.mutable_success(), text.substr(success + 6, failure - success - 6));
    if (failure != std::string::npos) add(*request.mutable_failure(), text.substr(failure + 6));
    tell(lab_.txn(request));
  }

  void revoke(const Words& words) {
    const auto revoked = lab_.revoke(std::stoll(words.positional.at(0)));
    if (!revoked) return say(std::string(revoked.error().reason()));
    say("deleted " + std::to_string(revoked->deleted()) + " at " + std::to_string(revoked->revision()));
  }
  void show_log(const Words& words) {
    EventFilter filter{.range = *key_range("", "", words.text("prefix")), .prev_kv = true};
    const auto chunk = PastReader::read(lab_.machine().view(), kLabScope, filter,
                                        {static_cast<uint64_t>(words.number("from")), 0}, 1'000, 1 << 20);
    if (chunk.compacted != 0) return say("compacted, begin at " + std::to_string(chunk.compacted));
    v1::WatchResponse item;
    EXPECT_TRUE(item.ParseFromString(chunk.events));
    for (const auto& event : item.events()) {
      const bool put = event.kind() == v1::KEY_EVENT_KIND_PUT;
      say(std::to_string(event.pair().mod_revision()) + (put ? " put " : " delete ") + event.pair().key() +
          (put ? "=" + event.pair().value() : "") +
          (event.has_prev_kv() ? ", before: " + event.prev_kv().value() : ""));
    }
  }
  void show_history(const std::string& key) {
    v1::GetHistoryRequest request;
    request.set_key(key);
    const auto answer = history_answer(lab_.machine().view(), kLabScope, lab_.head(), request);
    if (!answer) return say(std::string(answer.error().reason()));
    v1::GetHistoryResponse response;
    EXPECT_TRUE(response.ParseFromString(*answer));
    for (const auto& version : response.versions()) {
      say(std::to_string(version.revision()) + (version.deleted() ? " deleted" : " " + text(version.pair())));
    }
  }
  void roll_back(const Words& words) {
    internal::v1::KvRollbackCommand command;
    set_range(*command.mutable_request(), words);
    command.mutable_request()->set_revision(words.number("to-revision"));
    *command.mutable_limits() = lab_.limits;
    const auto done = lab_.run<v1::RollbackResponse>("rollback", command);
    if (!done) return say(std::string(done.error().reason()));
    say("restored " + std::to_string(done->restored()) + ", deleted " + std::to_string(done->deleted()) + " at " +
        std::to_string(done->revision()));
  }
  void show_store() {
    const Head head = lab_.head();
    say("revision=" + std::to_string(head.revision) + " oldest=" + std::to_string(head.compacted) +
        " keys=" + std::to_string(head.keys) + " leases=" + std::to_string(head.leases) + " history-rows=" +
        std::to_string(lab_.rows_of(kHistoryTable)) + " log-rows=" + std::to_string(lab_.rows_of(kRevisionTable)));
  }

  KvLab lab_;
  std::string out_;
};

class KvScriptTest : public testing::TestWithParam<std::string> {};

TEST_P(KvScriptTest, ProducesItsTranscript) { test::expect_transcript<Script>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(All, KvScriptTest, testing::ValuesIn(test::transcripts("kv")), test::transcript_name);

}  // namespace
}  // namespace uccp::kv
