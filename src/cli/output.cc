#include "cli/output.h"

#include <algorithm>

#include "cli/json_path.h"
#include "cli/manifest.h"
#include "cli/render.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

constexpr size_t kStreamColumnWidthMin = 10;

std::string field_text(const call::MessagePlan& plan, std::string_view name, std::string_view wire) {
  const call::FieldPlan* field = plan.by_name(name);
  if (field == nullptr || field->shape != call::Shape::kSingular || field->kind == call::Kind::kMessage) return {};
  Result<call::FieldPath> path = call::FieldPath::compile(plan, name);
  return path ? call::get_text(*path, wire).value_or("") : "";
}

// The resource that a call was about: named by the answer, else by the request.
std::string subject(const call::Method& method, const std::string& request, const std::string& response) {
  std::string id = resource_id(*method.response, response);
  if (id.empty() && !method.resource.empty()) id = call::get_text(method.resource, request).value_or("");
  if (id.empty() && method.cli && !method.cli->args.empty() &&
      method.cli->args.front().leaf().shape == call::Shape::kSingular) {
    id = call::get_text(method.cli->args.front(), request).value_or("");
  }
  return id;
}

bool is_plain_view(Format format) { return format == Format::kTable || format == Format::kWide; }

// One document through the template of -o jsonpath=; a line break where the template has none of its own.
Status print_json_path(Session& session, std::string_view json) {
  UCCP_TRY(const JsonPath path, JsonPath::parse(session.settings.json_path));
  std::string text = path.apply(json);
  if (!session.settings.json_path.contains("\\n") && !text.empty()) text += "\n";
  session.io.out(printable(text, Breaks::kKeep));
  return Status::ok();
}

// What `apply` takes: the resources as documents.
Status print_manifest(Session& session, const Command& command, const std::vector<std::string>& items) {
  const Kinds kinds(session.catalog);
  UCCP_TRY(const Kind* kind, kinds.find(command.noun));
  UCCP_TRY(const std::string text, manifest_of(*kind, items));
  session.io.out(text);
  return Status::ok();
}

Status print_csv(Session& session, const call::MessagePlan& plan, const call::CliCommand& command,
                 const std::vector<std::string>& items) {
  const Columns columns(plan, command, Format::kCsv, session.io.wall_us());
  std::string out = csv_record(columns.headings());
  for (const std::string& item : items) {
    UCCP_TRY(const std::string json, message_json_full(plan, item));
    out += csv_record(columns.values(json));
  }
  session.io.out(out);
  return Status::ok();
}

Status print_message(Session& session, const call::MessagePlan& plan, const std::string& wire) {
  switch (session.settings.format) {
    case Format::kJsonPath: {
      UCCP_TRY(const std::string json, message_json(plan, wire, Layout::kCompact));
      return print_json_path(session, json);
    }
    case Format::kJson: {
      UCCP_TRY(const std::string json, message_json(plan, wire, Layout::kPretty));
      session.io.out(json + "\n");
      return Status::ok();
    }
    case Format::kJsonl: {
      UCCP_TRY(const std::string json, message_json(plan, wire, Layout::kCompact));
      session.io.out(json + "\n");
      return Status::ok();
    }
    case Format::kYaml: {
      UCCP_TRY(const std::string json, message_json(plan, wire, Layout::kCompact));
      session.io.out(json_to_yaml(json));
      return Status::ok();
    }
    default: {
      UCCP_TRY(const std::string json, message_json_full(plan, wire));
      if (json != "{}") session.io.out(printable(json_to_yaml(json), Breaks::kKeep));
      return Status::ok();
    }
  }
}

Status print_change(Session& session, const Command& command, const std::string& request, const std::string& response) {
  const call::Method& method = *command.method;
  if (session.settings.quiet) {
    session.io.out(subject(method, request, response) + "\n");
    return Status::ok();
  }
  session.io.out(confirmation(session, command, request, response) + "\n");
  // An answer that is not the resource itself says something of its own.
  if (resource_id(*method.response, response).empty()) return print_message(session, *method.response, response);
  return Status::ok();
}

Status print_table(Session& session, const Command& command, const std::vector<std::string>& items) {
  const call::MessagePlan& plan = *command.method->items->message;
  if (items.empty()) {
    const std::string where = session.settings.name_space.empty() ? "" : " in namespace " + session.settings.name_space;
    session.note("no " + plural(command.noun) + " found" + where);
    return Status::ok();
  }
  const Columns columns(plan, *command.method->cli, session.settings.format, session.io.wall_us());
  std::vector<std::vector<std::string>> rows = {columns.headings()};
  for (const std::string& item : items) {
    UCCP_TRY(const std::string json, message_json_full(plan, item));
    rows.push_back(columns.cells(json));
  }
  session.io.out(render_table(rows, &session.paint));
  return Status::ok();
}

}  // namespace

call::FieldPath raw_data_field(const call::MessagePlan& plan) {
  const call::FieldPlan* field = plan.by_name("data");
  if (field == nullptr || field->kind != call::Kind::kBytes || field->shape != call::Shape::kSingular) return {};
  Result<call::FieldPath> path = call::FieldPath::compile(plan, "data");
  return path ? *path : call::FieldPath();
}

std::string confirmation(const Session& session, const Command& command, const std::string& request,
                         const std::string& response) {
  const call::Method& method = *command.method;
  std::string line = command.noun;
  const std::string id = subject(method, request, response);
  if (!id.empty()) line += "/" + printable(id);
  line += " " + past(command.verb);
  for (const std::string_view name : {"lease_id", "fencing_token"}) {
    const std::string value = field_text(*method.response, name, response);
    if (!value.empty()) line += " " + std::string(name) + "=" + printable(value);
  }
  const bool checked = session.settings.dry_run || field_text(*method.request, "validate_only", request) == "true";
  if (checked) line += " (checked only, nothing was changed)";
  return line;
}

Status print_rows(Session& session, const Command& command, const std::vector<std::string>& items) {
  const call::MessagePlan& plan = *command.method->items->message;
  const Format format = session.settings.format;
  if (format == Format::kName || session.settings.quiet) {
    for (const std::string& item : items) {
      const std::string id = printable(resource_id(plan, item));
      session.io.out(format == Format::kName ? command.noun + "/" + id + "\n" : id + "\n");
    }
    return Status::ok();
  }
  if (is_plain_view(format)) return print_table(session, command, items);
  if (format == Format::kManifest) return print_manifest(session, command, items);
  if (format == Format::kCsv) return print_csv(session, plan, *command.method->cli, items);
  std::vector<std::string> rendered;
  for (const std::string& item : items) {
    UCCP_TRY(std::string json, message_json(plan, item, format == Format::kJson ? Layout::kPretty : Layout::kCompact));
    rendered.push_back(std::move(json));
  }
  if (format == Format::kJsonPath) return print_json_path(session, "[" + join(rendered, ",") + "]");
  if (format == Format::kJson) {
    session.io.out(json_array(rendered));
  } else if (format == Format::kYaml) {
    session.io.out(json_to_yaml("[" + join(rendered, ",") + "]"));
  } else {
    for (const std::string& json : rendered) session.io.out(json + "\n");
  }
  return Status::ok();
}

Status print_answer(Session& session, const Command& command, const std::string& request, const std::string& response) {
  const call::Method& method = *command.method;
  if (method.items != nullptr && method.items->kind == call::Kind::kMessage) {
    UCCP_TRY(const call::FieldPath path, call::FieldPath::compile(*method.response, method.items->name));
    std::vector<std::string> items;
    for (const std::string_view item : call::get_items(path, response)) items.emplace_back(item);
    return print_rows(session, command, items);
  }
  if (session.settings.format == Format::kName) {
    session.io.out(command.noun + "/" + printable(subject(method, request, response)) + "\n");
    return Status::ok();
  }
  if (session.settings.format == Format::kManifest) return print_manifest(session, command, {response});
  if (is_plain_view(session.settings.format)) {
    if (method.mutating) return print_change(session, command, request, response);
    const call::FieldPath data = raw_data_field(*method.response);
    if (!data.empty()) {
      session.io.out(call::get_string(data, response).value_or(""));
      return Status::ok();
    }
  }
  return print_message(session, *method.response, response);
}

StreamPrinter::StreamPrinter(Session& session, const Command& command)
    : session_(session), command_(command), plan_(*command.method->response), data_(raw_data_field(plan_)) {}

Status StreamPrinter::print_row(const std::string& item) {
  const Columns columns(plan_, *command_.method->cli, session_.settings.format, session_.io.wall_us());
  UCCP_TRY(const std::string json, message_json_full(plan_, item));
  // SYNCED marks where the present state ends and changes begin; it is no change of anything.
  if (json.find("\"kind\":\"SYNCED\"") != std::string::npos) return Status::ok();
  const auto line = [this](const std::vector<std::string>& row) {
    std::string out;
    for (size_t i = 0; i < row.size(); ++i) {
      widths_[i] = std::max(widths_[i], display_width(row[i]));
      out += i + 1 < row.size() ? padded(row[i], widths_[i] + 3) : row[i];
    }
    session_.io.out(out + "\n");
  };
  const std::vector<std::string> cells = columns.cells(json);
  if (widths_.empty()) {
    widths_.assign(cells.size(), kStreamColumnWidthMin);
    // The first row's widths hold for the heading too.
    for (size_t i = 0; i < cells.size(); ++i) widths_[i] = std::max(widths_[i], display_width(cells[i]));
    line(columns.headings());
  }
  line(cells);
  return Status::ok();
}

Status StreamPrinter::print_end(const std::string& item, const std::string& reason) {
  if (reason == "COMPLETED" || reason == "CAUGHT_UP" || reason == "LIMIT") return Status::ok();
  if (reason == "COMPACTED" || reason == "REVOKED") return Status::ok();  // the caller makes an error of these
  Result<call::FieldPath> path = call::FieldPath::compile(plan_, command_.method->end.text() + ".message");
  session_.note("ended: " + reason + " " + printable(path ? call::get_text(*path, item).value_or("") : ""));
  return Status::ok();
}

Status StreamPrinter::print(const std::string& item) {
  const Format format = session_.settings.format;
  if (format == Format::kJson || format == Format::kJsonl) {
    UCCP_TRY(const std::string json, message_json(plan_, item, Layout::kCompact));
    session_.io.out(json + "\n");
    return Status::ok();
  }
  if (format == Format::kYaml) {
    UCCP_TRY(const std::string json, message_json(plan_, item, Layout::kCompact));
    session_.io.out("---\n" + json_to_yaml(json));
    return Status::ok();
  }
  if (format == Format::kJsonPath) {
    UCCP_TRY(const std::string json, message_json(plan_, item, Layout::kCompact));
    return print_json_path(session_, json);
  }
  const std::string reason = end_reason(*command_.method, item);
  if (!reason.empty()) return print_end(item, reason);
  if (!data_.empty()) {
    session_.io.out(call::get_string(data_, item).value_or(""));
    return Status::ok();
  }
  if (command_.method->cli && !command_.method->cli->columns.empty()) return print_row(item);
  UCCP_TRY(const std::string json, message_json(plan_, item, Layout::kCompact));
  session_.io.out(json + "\n");
  return Status::ok();
}

}  // namespace uccp::cli
