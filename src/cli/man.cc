// `uccp-cli man`: manual pages in man(7), from the tables and comments that `--help` prints.
#include <algorithm>
#include <array>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/text.h"

#ifndef UCCP_VERSION
#define UCCP_VERSION "unversioned"
#endif

namespace uccp::cli {
namespace {

constexpr std::string_view kProgram = "uccp-cli";
constexpr size_t kLineWidth = 76;

struct Named {
  std::string_view name;
  std::string_view what;
};

constexpr auto kEnvironment = std::to_array<Named>({
    {"UCCP_CONTEXT_FILE", "A context file: addresses, certificates and a token of a cluster."},
    {"UCCP_CONTEXT", "Name of a context."},
    {"UCCP_TOKEN", "Bearer token or API key."},
    {"UCCP_CONFIG_DIR", "Folder of contexts, session and history; default ~/.config/uccp."},
    {"UCCP_SESSION_FILE", "Session of `auth login`; default session.json in that folder."},
    {"UCCP_PYTHON", "The Python that does `workflow`; default ../venv/bin/python beside this program."},
    {"NO_COLOR", "Set: no colors."},
});

constexpr auto kFiles = std::to_array<Named>({
    {"./data/dev.json", "Context of `uccp dev`, taken where nothing else names one."},
    {"~/.config/uccp/contexts/", "Contexts, one file each, readable for their owner."},
    {"~/.config/uccp/history", "Lines typed in `uccp-cli shell`, without those that hold a token or password."},
});

// Text for a line of man(7): nothing in it is a request or an escape.
std::string escaped(std::string_view text) {
  std::string out;
  bool at_start = true;
  for (const char c : text) {
    if (at_start && (c == '.' || c == '\'')) out += "\\&";
    at_start = c == '\n';
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string section(std::string_view name) { return ".SH " + std::string(name) + "\n"; }

// A comment of the contract: paragraphs between empty lines; lines that are set in stay as they are.
std::string paragraphs(std::string_view text) {
  std::string out;
  bool verbatim = false;
  bool fresh = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(' ') == std::string_view::npos) {
      fresh = true;
      continue;
    }
    const bool set_in = line.starts_with("  ");
    if (set_in != verbatim) out += set_in ? ".PP\n.nf\n" : ".fi\n";
    if (!set_in && (fresh || verbatim) && !out.empty()) out += ".PP\n";
    verbatim = set_in;
    fresh = false;
    out += escaped(set_in ? std::string(line) : wrapped(line, 0, kLineWidth)) + "\n";
  }
  return out + (verbatim ? ".fi\n" : "");
}

std::string tagged(std::string_view tag, std::string_view what) {
  return ".TP\n.B " + escaped(tag) + "\n" + (what.empty() ? "\\&" : escaped(wrapped(what, 0, kLineWidth))) + "\n";
}

std::string head(std::string name, std::string_view what) {
  std::string upper;
  for (const char c : name) upper.push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  return ".TH " + escaped(upper) + " 1 \"\" \"UCCP " UCCP_VERSION "\" \"UCCP\"\n" + section("NAME") + escaped(name) +
         " \\- " + escaped(what) + "\n";
}

std::string flag_tag(const Flag& flag) {
  std::string tag = flag.letter != 0 ? std::string("-") + flag.letter + ", --" : "--";
  tag += flag.names.front();
  return flag.is_switch ? tag : tag + " " + flag.value_name;
}

std::string flag_entry(const Session& session, const Flag& flag) {
  const std::string what = flag_help(session, flag);
  return tagged(flag_tag(flag), what.empty() || what.ends_with('.') ? what : what + ".");
}

std::string page_name(const std::string& noun) { return std::string(kProgram) + (noun.empty() ? "" : "-" + noun); }

// "Shows ...\n\nusage: ...\n\nText": the words of one that has no noun, without its first line.
std::string word_entry(const Verbless& command) {
  std::string out = ".SS " + escaped(command.usage) + "\n" + escaped(command.what) + ".\n";
  const std::string_view help = command.help;
  const size_t usage = help.find("usage: ");
  const size_t rest = usage == std::string_view::npos ? usage : help.find("\n\n", usage);
  if (rest == std::string_view::npos) return out;
  const std::string text = paragraphs(help.substr(rest + 2));
  return out + (text.starts_with(".PP") ? text : ".PP\n" + text);
}

std::string exit_codes() {
  std::string out = section("EXIT STATUS") + ".nf\n";
  const std::string table = exit_code_help();
  return out + escaped(table) + (table.ends_with('\n') ? "" : "\n") + ".fi\n";
}

std::string main_page(const Session& session) {
  std::string out = head(std::string(kProgram), "operates a UCCP cluster");
  out += section("SYNOPSIS") + ".B " + std::string(escaped(kProgram)) + "\nNOUN VERB [ARGUMENTS] [FLAGS]\n";
  out += section("DESCRIPTION") +
         "Commands, their arguments, flags and columns come from the contract of the\nplatform.\n"
         "Each noun has a page of its own.\n";
  out += section("COMMANDS");
  for (const std::string& noun : session.catalog.nouns()) {
    std::vector<std::string> verbs;
    for (const Command* command : session.catalog.commands(noun)) verbs.push_back(command->verb);
    for (const FileCommand& command : file_commands()) {
      if (command.noun == noun) verbs.emplace_back(command.verb);
    }
    out += tagged(noun, join(verbs, ", ") + "; see " + page_name(noun) + "(1).");
  }
  out += section("COMMANDS OF ONE WORD");
  for (const Verbless& command : verbless_commands()) out += word_entry(command);
  out += section("OPTIONS");
  for (const Flag& flag : session.globals) out += flag_entry(session, flag);
  out += exit_codes();
  out += section("ENVIRONMENT");
  for (const Named& one : kEnvironment) out += tagged(one.name, one.what);
  out += section("FILES");
  for (const Named& one : kFiles) out += tagged(one.name, one.what);
  out += section("SEE ALSO");
  std::string pages;
  for (const std::string& noun : session.catalog.nouns())
    pages += (pages.empty() ? "" : ",\n") + page_name(noun) + "(1)";
  return out + escaped(pages) + "\n";
}

std::string command_entry(Session& session, const Command& command) {
  const std::string usage = usage_line(command);
  std::string out = ".SS " + escaped(usage.substr(usage.find(command.noun) + command.noun.size() + 1)) + "\n";
  out += paragraphs(session.docs.comment(comment_name(*command.method)));
  Request request(*command.method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  for (const Flag& flag : extra) out += flag_entry(session, flag);
  for (const Flag& flag : request.flags()) {
    const auto same = [&](const Flag& other) { return other.names.front() == flag.names.front(); };
    if (flag.depth <= kHelpDepthMax && std::ranges::none_of(extra, same)) out += flag_entry(session, flag);
  }
  const std::string examples = examples_for(command);
  return examples.empty() ? out : out + ".PP\nExamples:\n.PP\n.nf\n" + escaped(examples) + ".fi\n";
}

std::string noun_page(Session& session, const std::string& noun) {
  std::string out = head(page_name(noun), "commands of uccp-cli for a " + noun);
  out +=
      section("SYNOPSIS") + ".B " + escaped("uccp-cli " + noun) + "\nVERB [ARGUMENTS] [FLAGS]\n" + section("COMMANDS");
  for (const Command* command : session.catalog.commands(noun)) out += command_entry(session, *command);
  for (const FileCommand& command : file_commands()) {
    if (command.noun != noun) continue;
    const std::string usage = usage_of(command);
    out += ".SS " + escaped(usage.substr(noun.size() + 1)) + "\n" + escaped(command.what) + ".\n.PP\n" +
           paragraphs(command.details);
    for (const Flag& flag : flags_of(command)) out += flag_entry(session, flag);
  }
  return out + section("SEE ALSO") + escaped(std::string(kProgram)) + "(1)\n";
}

}  // namespace

Result<int> run_man(Session& session, Args args) {
  std::string folder;
  const std::vector<Flag> extra = {
      {.names = {"dir"}, .value_name = "DIR", .help = "folder for all pages", .set = [&folder](std::string_view text) {
         folder = std::string(text);
         return Status::ok();
       }}};
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(verbless_help("man"));
    return kExitOk;
  }
  if (words.size() > 1) return std::unexpected(usage_error("man takes one noun"));
  if (folder.empty()) {
    if (words.empty()) {
      session.io.out(main_page(session));
      return kExitOk;
    }
    UCCP_TRY(const std::string noun, session.catalog.noun(words.front()));
    session.io.out(noun_page(session, noun));
    return kExitOk;
  }
  UCCP_RETURN_IF_ERROR(session.io.write_file(folder + "/" + page_name("") + ".1", main_page(session)));
  const std::vector<std::string> nouns = session.catalog.nouns();
  for (const std::string& noun : nouns) {
    UCCP_RETURN_IF_ERROR(session.io.write_file(folder + "/" + page_name(noun) + ".1", noun_page(session, noun)));
  }
  session.note(std::to_string(nouns.size() + 1) + " pages in " + folder);
  return kExitOk;
}

}  // namespace uccp::cli
