// The commands of one word, with all that is said of them.
#include "cli/catalog.h"

#include <array>

namespace uccp::cli {
namespace {

constexpr std::string_view kGetHelp =
    "Shows resources of a kind.\n\n"
    "usage: uccp-cli get KIND [NAME...] [--watch] [FLAGS]\n\n"
    "Without a name it is `KIND list`, with one `KIND get`, and takes their flags: --filter, --order-by, --limit, -o.\n"
    "--watch goes on with what changes: a stream where the kind has one, else by asking again.\n\n"
    "Examples\n"
    "  uccp-cli get tasks --filter 'status = FAILED' -o wide\n"
    "  uccp-cli get role deployer -o yaml\n"
    "  uccp-cli get services --watch\n";

constexpr std::string_view kDescribeHelp =
    "Shows a resource and what else is known of it: what the kind's other reads answer, and its last changes.\n\n"
    "usage: uccp-cli describe KIND NAME [FLAGS]\n\n"
    "Examples\n"
    "  uccp-cli describe task task_01J8ZQ4V5K\n";

constexpr std::string_view kLogsHelp =
    "Shows what a resource wrote.\n\n"
    "usage: uccp-cli logs [KIND/]NAME [-f] [FLAGS]\n\n"
    "Examples\n"
    "  uccp-cli logs task_01J8ZQ4V5K -f --tail 100\n";

constexpr std::string_view kApplyHelp =
    "Makes what files say there should be: creates what is absent, changes what differs, leaves the rest alone.\n\n"
    "usage: uccp-cli apply -f FILE... [--dry-run]\n\n"
    "A file is YAML or JSON, of any number of documents. Each has resources by kind, one or a list:\n\n"
    "  role:\n"
    "    name: deployer\n"
    "    permissions: [tasks.write, tasks.read]\n"
    "  ---\n"
    "  user:\n"
    "  - {name: ada, groups: [ops]}\n"
    "  - {name: bob}\n\n"
    "Fields that a file does not name are left as they are. The order is that of the files; an error of one resource "
    "does\n"
    "not keep the others from being applied, and is the exit code. Applying a file twice changes nothing the second "
    "time.\n"
    "--dry-run checks all of it and changes nothing. `-o manifest` of any get or list prints such a document.\n\n"
    "Examples\n"
    "  uccp-cli apply -f roles.yaml -f users.yaml\n"
    "  uccp-cli get role deployer -o manifest | sed s/deployer/tester/ | uccp-cli apply -f -\n";

constexpr std::string_view kDiffHelp =
    "Shows what `apply` would change.\n\n"
    "usage: uccp-cli diff -f FILE...\n\n"
    "The exit code is 0 when there is nothing to change and 1 when there is.\n\n"
    "Examples\n"
    "  uccp-cli diff -f roles.yaml\n";

constexpr std::string_view kDeleteHelp =
    "Removes resources by name, or all that files name.\n\n"
    "usage: uccp-cli delete KIND NAME... [FLAGS]\n"
    "       uccp-cli delete -f FILE... [--dry-run]\n\n"
    "Files are as for `apply`; what is absent already is no error then, and the last is removed first.\n\n"
    "Examples\n"
    "  uccp-cli delete role deployer tester\n"
    "  uccp-cli delete -f roles.yaml\n";

constexpr std::string_view kContextHelp =
    "Names clusters and chooses the one that commands go to.\n\n"
    "usage: uccp-cli context list\n"
    "       uccp-cli context set NAME [--server HOST:PORT --ca FILE [--token TOKEN | --cert FILE --key FILE]]\n"
    "                                 [--context-file FILE] [-n NAMESPACE]\n"
    "       uccp-cli context use NAME\n"
    "       uccp-cli context show [NAME]\n"
    "       uccp-cli context delete NAME\n\n"
    "`set` keeps what the flags name, certificates and token included, in a file that only you can read. With\n"
    "--context-file alone it keeps the path, so that a restarted `uccp dev` is found again. The first context made is\n"
    "used at once. Contexts are in $UCCP_CONFIG_DIR, default ~/.config/uccp.\n\n"
    "Examples\n"
    "  uccp-cli context set dev --context-file ./data/dev.json\n"
    "  uccp-cli context set prod --server uccp.example.com:50000 --ca prod-ca.crt --token \"$TOKEN\" -n team-a\n"
    "  uccp-cli context use prod\n"
    "  uccp-cli task list --context dev\n";

constexpr std::string_view kWaitHelp =
    "Waits until a resource is as wanted.\n\n"
    "usage: uccp-cli wait NOUN ID --for FIELD=VALUE[,VALUE...] [--timeout DURATION]\n"
    "       uccp-cli wait NOUN ID --for deleted\n\n"
    "FIELD is a path in the resource's JSON. The exit code is 0 when it has one of the values and 6 when the time is\n"
    "over, default 5m.\n\n"
    "Examples\n"
    "  uccp-cli wait task task_01J8ZQ4V5K --for status=SUCCEEDED,FAILED\n"
    "  uccp-cli wait worker worker_01J8ZQ4V5K --for status=READY --timeout 30s\n"
    "  uccp-cli wait lock orders/42 --for deleted\n";

constexpr std::string_view kPublishHelp =
    "Publishes one event and answers when it is stored.\n\n"
    "usage: uccp-cli publish TOPIC --data STRING [--key KEY] [--type TYPE] [--header NAME=VALUE ...] "
    "[--transaction ID]\n"
    "       uccp-cli publish TOPIC --file FILE\n\n"
    "--file takes the content of a file, or of standard input with `-`. Events with the same key stay in order.\n\n"
    "Examples\n"
    "  uccp-cli publish orders --data 'order 17 created'\n"
    "  uccp-cli publish orders --data '{\"id\":17}' --key 17 --header region=eu\n";

constexpr std::string_view kSubscribeHelp =
    "Prints events, the payload of each on a line of its own.\n\n"
    "usage: uccp-cli subscribe TOPIC... [--since start|CURSOR] [--max N] [--follow] [--filter CONDITION]\n\n"
    "Without --follow it prints what there is, from the start of the topic unless --since says otherwise, and ends. "
    "With\n"
    "it, it waits for more, and begins with new events. TOPIC may have wildcards: `*` for one part, `>` for the rest.\n"
    "With -o jsonl each event is an object with its cursor, which --since takes.\n\n"
    "Examples\n"
    "  uccp-cli subscribe orders --since start --max 10\n"
    "  uccp-cli subscribe 'orders.>' --follow -o jsonl\n";

constexpr std::string_view kTopHelp =
    "Shows who uses what: by the second on a terminal, once elsewhere.\n\n"
    "usage: uccp-cli top [workers | tasks | nodes] [--interval DURATION] [--once] [--limit N]\n\n"
    "The busiest is first. Ctrl-C ends it.\n\n"
    "Examples\n"
    "  uccp-cli top tasks --interval 5s\n"
    "  uccp-cli top workers --once\n";

constexpr std::string_view kShellHelp =
    "Reads commands line by line, without `uccp-cli` in front.\n\n"
    "usage: uccp-cli [GLOBAL FLAGS] shell\n\n"
    "On a terminal it keeps a history and completes with Tab what `completion` does; global flags given to it hold for "
    "each\n"
    "command. Words are quoted as in a shell, # begins a comment; `exit` or Ctrl-D ends it, Ctrl-C only the command "
    "that\n"
    "runs. From a pipe it runs all lines; the exit code is that of the first that failed.\n\n"
    "Examples\n"
    "  uccp-cli --context prod shell\n"
    "  uccp-cli shell < commands.txt\n";

constexpr std::string_view kWorkflowHelp =
    "Runs workflows, shows and draws their runs.\n\n"
    "usage: uccp-cli workflow run FILE | NAME [--set NAME=VALUE ...] [--id ID] [--version N] [-q]\n"
    "       uccp-cli workflow resume ID [-q]\n"
    "       uccp-cli workflow list [--workflow NAME] [--status STATUS] [-o json]\n"
    "       uccp-cli workflow show ID [--svg [FILE]] [-o json]\n"
    "       uccp-cli workflow cancel ID [--reason TEXT]\n"
    "       uccp-cli workflow delete ID\n"
    "       uccp-cli workflow check FILE\n"
    "       uccp-cli workflow register FILE\n"
    "       uccp-cli workflow versions NAME\n"
    "       uccp-cli workflow rollback NAME [VERSION]\n\n"
    "It is done by the Python package of UCCP: that of $UCCP_PYTHON, default ../venv/bin/python beside this program. "
    "The\n"
    "cluster is named by a context: --context-file, --context, -n and the environment.\n\n"
    "Examples\n"
    "  uccp-cli workflow run sweep.yaml --set 'rates=[0.1, 0.2]' --id sweep-1\n"
    "  uccp-cli workflow show sweep-1 --svg sweep-1.svg\n";

constexpr std::string_view kManHelp =
    "Writes manual pages: the one of this program, and one for each noun.\n\n"
    "usage: uccp-cli man [NOUN] [--dir DIR]\n\n"
    "Without --dir the page is printed: of the program, or of the noun. With it all pages are written into the "
    "folder.\n\n"
    "Examples\n"
    "  uccp-cli man task | man -l -\n"
    "  uccp-cli man --dir ~/.local/share/man/man1\n";

constexpr auto kVerbless = std::to_array<Verbless>({
    {"get", "get KIND [NAME...] [--watch] [FLAGS]", "Shows resources of a kind", kGetHelp},
    {"describe", "describe KIND NAME [FLAGS]", "Shows a resource and what else is known of it", kDescribeHelp},
    {"apply", "apply -f FILE... [--dry-run]", "Makes what files say there should be", kApplyHelp},
    {"diff", "diff -f FILE...", "Shows what apply would change", kDiffHelp},
    {"delete", "delete KIND NAME... | delete -f FILE...", "Removes resources by name, or all that files name",
     kDeleteHelp},
    {"logs", "logs [KIND/]NAME [-f] [FLAGS]", "Shows what a resource wrote", kLogsHelp},
    {"top", "top [workers | tasks | nodes] [--interval DURATION] [--once]", "Shows who uses what", kTopHelp},
    {"shell", "shell", "Reads commands line by line", kShellHelp},
    {"man", "man [NOUN] [--dir DIR]", "Writes manual pages", kManHelp},
    {"api", "api METHOD [--data JSON]", "Calls any method of the contract by name", {}},
    {"context", "context list | set NAME | use NAME | show [NAME] | delete NAME", "Names clusters and chooses one",
     kContextHelp},
    {"completion", "completion bash | zsh | fish", "Prints what makes a shell complete words with Tab", {}},
    {"etcd",
     "etcd import (--endpoint URL | --file SNAPSHOT) [--prefix KEYS] [--to PREFIX] [--state FILE]",
     "Imports the keys of an etcd, live or from a snapshot",
     {}},
    {"explain", "explain NOUN[.FIELD...]", "Explains the fields of a resource", {}},
    {"health", "health", "Shows whether the cluster works", {}},
    {"version", "version", "Shows the versions of this program and of the server", {}},
    {"wait", "wait NOUN ID --for FIELD=VALUE | --for deleted", "Waits until a resource is as wanted", kWaitHelp},
    {"publish", "publish TOPIC --data STRING [--key KEY] [--type TYPE] [--header NAME=VALUE] [--transaction ID]",
     "Publishes an event", kPublishHelp},
    {"subscribe", "subscribe TOPIC... [--since start|CURSOR] [--max N] [--follow] [--filter CONDITION]",
     "Prints the events of topics", kSubscribeHelp},
    {"workflow", "workflow run | resume | list | show | cancel | delete | check | register | versions | rollback",
     "Runs workflows, shows and draws their runs", kWorkflowHelp},
    {"help", "help [NOUN [VERB]] | help exit-codes | help permissions", "Explains a command", {}},
});

}  // namespace

std::span<const Verbless> verbless_commands() { return kVerbless; }

std::string verbless_help(std::string_view word) {
  for (const Verbless& command : kVerbless) {
    if (command.word != word) continue;
    if (!command.help.empty()) return std::string(command.help);
    return std::string(command.what) + ".\n\nusage: uccp-cli " + std::string(command.usage) + "\n";
  }
  return {};
}

}  // namespace uccp::cli
