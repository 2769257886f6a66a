// Checks that the public contract keeps its own rules: what every method must declare, that everything is commented,
// and that no two methods share a REST route.
//
//   contract_check ROOT... [-- FILE...]
//
// Loads every .proto below the first ROOT, or only the named FILEs (relative to a ROOT), with imports found in all
// ROOTs, and prints `file:line: message` for each breach. Exit code 0: none; 1: some; 2: could not run.
//
// The options are read through the loaded descriptors and dynamic messages, so this program needs no generated code
// and cannot disagree with the options.proto that it is given.

#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;
namespace pb = google::protobuf;

constexpr std::string_view kPublicPackage = "uccp.v1";
// Where the system's protobuf keeps descriptor.proto and the well-known types.
constexpr const char* kSystemProtos = "/usr/include";
constexpr std::string_view kInternalPrefix = "uccp.internal.";

struct Breach {
  std::string file;
  int line = 0;
  std::string message;

  auto operator<=>(const Breach&) const = default;
};

// Breaches found so far, in file and line order when printed.
class Report {
 public:
  template <typename Descriptor>
  void add(const Descriptor* on, std::string message) {
    pb::SourceLocation at;
    const int line = on->GetSourceLocation(&at) ? at.start_line + 1 : 1;
    breaches_.push_back({on->file()->name(), line, std::move(message)});
  }

  void add(Breach breach) { breaches_.push_back(std::move(breach)); }

  [[nodiscard]] bool empty() const { return breaches_.empty(); }

  void print() {
    std::ranges::sort(breaches_);
    for (const Breach& b : breaches_) {
      std::fprintf(stderr, "%s:%d: %s\n", b.file.c_str(), b.line, b.message.c_str());
    }
  }

 private:
  std::vector<Breach> breaches_;
};

class ImportErrors final : public pb::compiler::MultiFileErrorCollector {
 public:
  explicit ImportErrors(Report& report) : report_(report) {}

  void AddError(const std::string& file, int line, int /*column*/, const std::string& message) override {
    report_.add(Breach{file, line + 1, message});
  }

 private:
  Report& report_;
};

// An option message, looked at by field name. Absent fields read as empty.
class OptionView {
 public:
  OptionView() = default;
  explicit OptionView(const pb::Message* message) : message_(message) {}

  [[nodiscard]] bool present() const { return message_ != nullptr; }

  [[nodiscard]] std::string text(const std::string& field) const {
    const pb::FieldDescriptor* f = find(field);
    return f != nullptr ? message_->GetReflection()->GetString(*message_, f) : std::string();
  }

  [[nodiscard]] bool flag(const std::string& field) const {
    const pb::FieldDescriptor* f = find(field);
    return f != nullptr && message_->GetReflection()->GetBool(*message_, f);
  }

  [[nodiscard]] std::string enum_name(const std::string& field) const {
    const pb::FieldDescriptor* f = find(field);
    return f != nullptr ? message_->GetReflection()->GetEnum(*message_, f)->name() : std::string();
  }

  [[nodiscard]] OptionView child(const std::string& field) const {
    const pb::FieldDescriptor* f = find(field);
    if (f == nullptr || !message_->GetReflection()->HasField(*message_, f)) return OptionView();
    return OptionView(&message_->GetReflection()->GetMessage(*message_, f));
  }

  [[nodiscard]] std::vector<std::string> texts(const std::string& field) const {
    std::vector<std::string> all;
    const pb::FieldDescriptor* f = find(field);
    if (f == nullptr) return all;
    const pb::Reflection* reflection = message_->GetReflection();
    for (int i = 0; i < reflection->FieldSize(*message_, f); ++i) {
      all.push_back(reflection->GetRepeatedString(*message_, f, i));
    }
    return all;
  }

  [[nodiscard]] int count(const std::string& field) const {
    const pb::FieldDescriptor* f = find(field);
    return f != nullptr ? message_->GetReflection()->FieldSize(*message_, f) : 0;
  }

 private:
  [[nodiscard]] const pb::FieldDescriptor* find(const std::string& field) const {
    return message_ != nullptr ? message_->GetDescriptor()->FindFieldByName(field) : nullptr;
  }

  const pb::Message* message_ = nullptr;
};

// The options of one method, parsed again with the extensions that the loaded files define.
class MethodOptions {
 public:
  MethodOptions(const pb::MethodDescriptor* method, pb::DynamicMessageFactory& factory) {
    const pb::DescriptorPool* pool = method->file()->pool();
    const pb::Descriptor* type = pool->FindMessageTypeByName("google.protobuf.MethodOptions");
    if (type == nullptr) return;
    message_.reset(factory.GetPrototype(type)->New());
    message_->ParseFromString(method->options().SerializeAsString());
  }

  [[nodiscard]] OptionView extension(const std::string& name) const {
    if (message_ == nullptr) return OptionView();
    const pb::FieldDescriptor* f = message_->GetDescriptor()->file()->pool()->FindExtensionByName(name);
    if (f == nullptr || !message_->GetReflection()->HasField(*message_, f)) return OptionView();
    return OptionView(&message_->GetReflection()->GetMessage(*message_, f));
  }

 private:
  std::unique_ptr<pb::Message> message_;
};

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

template <typename Descriptor>
std::string leading_comment(const Descriptor* of) {
  pb::SourceLocation at;
  return of->GetSourceLocation(&at) ? at.leading_comments : std::string();
}

// True when a line of the comment begins with `label` and says something behind it.
bool has_labelled_line(std::string_view comment, std::string_view label) {
  size_t at = 0;
  while (at < comment.size()) {
    const size_t end = std::min(comment.find('\n', at), comment.size());
    const std::string_view line = trimmed(comment.substr(at, end - at));
    if (line.starts_with(label) && !trimmed(line.substr(label.size())).empty()) return true;
    at = end + 1;
  }
  return false;
}

// The field at a dotted path below a message, through repeated and map fields too; null when there is none.
const pb::FieldDescriptor* field_at(const pb::Descriptor* message, std::string_view path) {
  const pb::FieldDescriptor* field = nullptr;
  while (!path.empty()) {
    if (message == nullptr) return nullptr;
    const size_t dot = std::min(path.find('.'), path.size());
    field = message->FindFieldByName(std::string(path.substr(0, dot)));
    if (field == nullptr) return nullptr;
    message = field->is_map() ? nullptr : field->message_type();
    path = dot < path.size() ? path.substr(dot + 1) : std::string_view();
  }
  return field;
}

struct Route {
  std::string verb;
  std::string path;
};

// The binding of a google.api.http option; none when it has no route of the usual verbs.
std::optional<Route> route_of(const OptionView& http) {
  for (const char* verb : {"get", "put", "post", "delete", "patch"}) {
    const std::string path = http.text(verb);
    if (!path.empty()) return Route{verb, path};
  }
  return std::nullopt;
}

// Names of variables in a path template, without their patterns.
std::vector<std::string> variables_of(std::string_view path) {
  std::vector<std::string> names;
  for (size_t open = path.find('{'); open != std::string_view::npos; open = path.find('{', open + 1)) {
    const size_t close = path.find('}', open);
    if (close == std::string_view::npos) break;
    const std::string_view inside = path.substr(open + 1, close - open - 1);
    names.emplace_back(inside.substr(0, inside.find('=')));
  }
  return names;
}

// The path with variable names removed, so that routes which match the same requests are equal.
std::string route_key(const Route& route) {
  std::string key = route.verb + " ";
  std::string_view path = route.path;
  while (!path.empty()) {
    const size_t open = path.find('{');
    key += path.substr(0, open);
    if (open == std::string_view::npos) break;
    const size_t close = path.find('}', open);
    if (close == std::string_view::npos) break;
    const std::string_view inside = path.substr(open + 1, close - open - 1);
    key += inside.find("**") != std::string_view::npos ? "{**}" : "{*}";
    path.remove_prefix(close + 1);
  }
  return key;
}

class Checker {
 public:
  explicit Checker(Report& report) : report_(report) {}

  void check(const pb::FileDescriptor* file) {
    const bool internal = file->package().starts_with(kInternalPrefix);
    for (int i = 0; i < file->message_type_count(); ++i) check_message(file->message_type(i));
    for (int i = 0; i < file->enum_type_count(); ++i) check_enum(file->enum_type(i));
    for (int i = 0; i < file->extension_count(); ++i) demand_comment(file->extension(i), "extension");
    for (int i = 0; i < file->service_count(); ++i) {
      const pb::ServiceDescriptor* service = file->service(i);
      demand_comment(service, "service");
      for (int m = 0; m < service->method_count(); ++m) check_method(service->method(m), internal);
    }
  }

 private:
  template <typename Descriptor>
  void demand_comment(const Descriptor* on, const char* what) {
    if (trimmed(leading_comment(on)).empty()) {
      report_.add(on, std::string(what) + " " + on->name() + " has no comment");
    }
  }

  void check_message(const pb::Descriptor* message) {
    if (message->options().map_entry()) return;
    demand_comment(message, "message");
    for (int i = 0; i < message->field_count(); ++i) demand_comment(message->field(i), "field");
    for (int i = 0; i < message->real_oneof_decl_count(); ++i) demand_comment(message->oneof_decl(i), "oneof");
    for (int i = 0; i < message->nested_type_count(); ++i) check_message(message->nested_type(i));
    for (int i = 0; i < message->enum_type_count(); ++i) check_enum(message->enum_type(i));
  }

  void check_enum(const pb::EnumDescriptor* type) {
    demand_comment(type, "enum");
    for (int i = 0; i < type->value_count(); ++i) demand_comment(type->value(i), "enum value");
  }

  void check_method(const pb::MethodDescriptor* method, bool internal) {
    const MethodOptions options(method, factory_);
    const OptionView policy = options.extension(std::string(kPublicPackage) + ".method");
    const OptionView http = options.extension("google.api.http");
    const std::optional<Route> route = route_of(http);

    check_method_comment(method);
    if (!internal) {
      if (!method->client_streaming() && method->input_type()->name() != method->name() + "Request") {
        breach(method, "takes " + method->input_type()->name() + ", not " + method->name() + "Request");
      }
      check_route(method, http, route);
    }
    if (!policy.present()) {
      breach(method, "has no option (uccp.v1.method)");
      return;
    }
    check_policy(method, policy, route.has_value() && route->verb != "get");
    check_paths(method, policy);
    check_stream(method, policy);
    check_paging(method, policy);
  }

  void check_method_comment(const pb::MethodDescriptor* method) {
    const std::string comment = leading_comment(method);
    const std::string_view text = trimmed(comment);
    const size_t sentence_end = text.find('.');
    const size_t paragraph_end = text.find("\n\n");
    const bool has_sentence = !text.empty() && !text.starts_with("Idempotency:") && !text.starts_with("Failure:") &&
                              sentence_end != std::string_view::npos && sentence_end < text.find("Idempotency:") &&
                              (paragraph_end == std::string_view::npos || sentence_end < paragraph_end);
    if (!has_sentence) breach(method, "has no comment that begins with a sentence");
    if (!has_labelled_line(text, "Idempotency:")) breach(method, "has no `Idempotency:` line in its comment");
    if (!has_labelled_line(text, "Failure:")) breach(method, "has no `Failure:` line in its comment");
  }

  void check_route(const pb::MethodDescriptor* method, const OptionView& http, const std::optional<Route>& route) {
    if (!route.has_value()) {
      breach(method, "has no google.api.http binding");
      return;
    }
    if (http.count("additional_bindings") > 0) breach(method, "has more than one REST binding");
    const auto [at, fresh] = method_of_route_.emplace(route_key(*route), method->full_name());
    if (!fresh) breach(method, "has the same route as " + at->second + ": " + route->verb + " " + route->path);
    for (const std::string& name : variables_of(route->path)) {
      if (field_at(method->input_type(), name) == nullptr) breach(method, "has an unknown path variable " + name);
    }
    const std::string body = http.text("body");
    if (!body.empty() && body != "*" && field_at(method->input_type(), body) == nullptr) {
      breach(method, "has an unknown body field " + body);
    }
  }

  void check_policy(const pb::MethodDescriptor* method, const OptionView& policy, bool writes_by_verb) {
    const std::string permission = policy.text("permission");
    const size_t dot = permission.find('.');
    const bool well_formed = dot != std::string::npos && dot > 0 && dot + 1 < permission.size();
    if (permission != "public" && !well_formed) breach(method, "has no permission of the form noun.verb");

    const std::string audit = policy.enum_name("audit");
    if (audit.empty() || audit == "AUDIT_UNSPECIFIED") breach(method, "does not say what is audited");

    const OptionView idempotency = policy.child("idempotency");
    const std::string key = idempotency.text("key_field");
    const bool mutates = writes_by_verb || (audit != "AUDIT_NONE" && audit != "AUDIT_UNSPECIFIED");
    if (mutates && key.empty() && !idempotency.flag("natural")) {
      breach(method, "mutates but does not say why it may be repeated (idempotency)");
    }
    if (idempotency.present() && !key.empty()) demand_input_path(method, "idempotency.key_field", key);
  }

  // Paths into the request and the items that the options name must exist.
  void check_paths(const pb::MethodDescriptor* method, const OptionView& policy) {
    demand_input_path(method, "resource", policy.text("resource"));
    demand_input_path(method, "resume_field", policy.text("resume_field"));
    for (const std::string& path : policy.texts("redact")) demand_input_path(method, "redact", path);

    const OptionView rest = policy.child("rest");
    demand_input_path(method, "rest.if_match_field", rest.text("if_match_field"));
    demand_path(method, method->output_type(), "rest.etag_field", rest.text("etag_field"));
    for (const std::string& name : variables_of(rest.text("location"))) {
      demand_path(method, method->output_type(), "rest.location", name);
    }

    const OptionView cli = policy.child("cli");
    for (const std::string& path : cli.texts("args")) demand_input_path(method, "cli.args", path);
    const pb::Descriptor* item = method->output_type();
    std::string items_field = cli.text("items_field");
    if (items_field.empty()) items_field = policy.child("paging").text("items_field");
    if (!items_field.empty()) {
      const pb::FieldDescriptor* items = field_at(item, items_field);
      if (items == nullptr || !items->is_repeated() || items->message_type() == nullptr) {
        breach(method, "names " + items_field + " as items, which is no repeated message of its answer");
        return;
      }
      item = items->message_type();
    }
    for (const std::string& path : cli.texts("columns")) demand_path(method, item, "cli.columns", path);
    for (const std::string& path : cli.texts("wide_columns")) demand_path(method, item, "cli.wide_columns", path);
  }

  void check_stream(const pb::MethodDescriptor* method, const OptionView& policy) {
    if (!method->server_streaming()) return;
    const pb::Descriptor* item = method->output_type();
    if (item->FindFieldByName("cursor") == nullptr) breach(method, "streams " + item->name() + ", which has no cursor");
    const pb::FieldDescriptor* end = nullptr;
    for (int i = 0; i < item->field_count() && end == nullptr; ++i) {
      const pb::Descriptor* type = item->field(i)->message_type();
      if (type != nullptr && type->full_name() == std::string(kPublicPackage) + ".StreamEnd") end = item->field(i);
    }
    if (end == nullptr) breach(method, "streams " + item->name() + ", which has no StreamEnd");
    if (!method->client_streaming() && policy.text("resume_field").empty()) {
      breach(method, "streams without a resume_field");
    }
  }

  void check_paging(const pb::MethodDescriptor* method, const OptionView& policy) {
    const bool lists = method->name().starts_with("List") || method->name().starts_with("Search");
    const OptionView paging = policy.child("paging");
    if (lists && !paging.present()) {
      breach(method, "lists without paging");
      return;
    }
    if (!paging.present()) return;
    for (const char* field : {"page_size", "page_token", "order_by", "filter"}) {
      if (method->input_type()->FindFieldByName(field) == nullptr) {
        breach(method, std::string("pages but its request has no ") + field);
      }
    }
    if (method->output_type()->FindFieldByName("next_page_token") == nullptr) {
      breach(method, "pages but its answer has no next_page_token");
    }
    if (paging.text("items_field").empty()) breach(method, "pages but names no items_field");
  }

  void demand_input_path(const pb::MethodDescriptor* method, const std::string& option, const std::string& path) {
    demand_path(method, method->input_type(), option, path);
  }

  void demand_path(const pb::MethodDescriptor* method, const pb::Descriptor* in, const std::string& option,
                   const std::string& path) {
    if (path.empty() || field_at(in, path) != nullptr) return;
    breach(method, "names " + path + " in " + option + ", which " + in->name() + " has not");
  }

  void breach(const pb::MethodDescriptor* method, const std::string& message) {
    report_.add(method, "rpc " + method->name() + " " + message);
  }

  Report& report_;
  pb::DynamicMessageFactory factory_;
  std::map<std::string, std::string> method_of_route_;
};

std::set<std::string> protos_below(const fs::path& root) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file() && entry.path().extension() == ".proto") {
      names.insert(fs::relative(entry.path(), root).generic_string());
    }
  }
  return names;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> roots;
  std::set<std::string> files;
  bool naming_files = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--") {
      naming_files = true;
    } else if (naming_files) {
      files.emplace(arg);
    } else {
      roots.emplace_back(arg);
    }
  }
  if (roots.empty()) {
    std::fputs("usage: contract_check ROOT... [-- FILE...]\n", stderr);
    return 2;
  }

  pb::compiler::DiskSourceTree tree;
  for (const std::string& root : roots) {
    if (!fs::is_directory(root)) {
      std::fprintf(stderr, "contract_check: %s is not a folder\n", root.c_str());
      return 2;
    }
    tree.MapPath("", root);
  }
  tree.MapPath("", kSystemProtos);

  if (files.empty()) files = protos_below(roots.front());
  if (files.empty()) {
    std::fprintf(stderr, "contract_check: no .proto below %s\n", roots.front().c_str());
    return 2;
  }

  Report report;
  ImportErrors errors(report);
  pb::compiler::Importer importer(&tree, &errors);
  std::vector<const pb::FileDescriptor*> loaded;
  for (const std::string& file : files) {
    if (const pb::FileDescriptor* descriptor = importer.Import(file)) loaded.push_back(descriptor);
  }
  if (report.empty()) {
    Checker checker(report);
    for (const pb::FileDescriptor* file : loaded) checker.check(file);
  }
  report.print();
  return report.empty() ? 0 : 1;
}
