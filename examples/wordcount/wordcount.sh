#!/usr/bin/env bash
# Counts the words of many texts with tasks: one a text, all at the same time, and one that adds them up.
#
#   examples/wordcount/wordcount.sh [--context-file FILE] [--top N] [TEXT...]
#
# Prints the N (10) most frequent words of the TEXTs (the licenses of the system) and compares the whole result with
# what one pipeline on this machine counts. The server is named by --context-file or UCCP_CONTEXT_FILE, else it is the
# one of `make run`.
set -euo pipefail
export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cli=${UCCP_CLI:-$root/build/bin/uccp-cli}
top=10
texts=()
while [ $# -gt 0 ]; do
  case $1 in
    --context-file) export UCCP_CONTEXT_FILE=$2; shift 2 ;;
    --top) top=$2; shift 2 ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) texts+=("$1"); shift ;;
  esac
done
export UCCP_CONTEXT_FILE=${UCCP_CONTEXT_FILE:-$root/data/dev.json}
if [ ! -f "$UCCP_CONTEXT_FILE" ]; then
  echo "wordcount: there is no $UCCP_CONTEXT_FILE; start a server with 'make run', or name one with --context-file" >&2
  exit 2
fi
if [ ${#texts[@]} = 0 ]; then mapfile -t texts < <(find /usr/share/common-licenses -type f | sort); fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The three steps, as they run in the tasks and, below, on this machine.
words="tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]' '\n' | sed '/^\$/d'"
count="sort | uniq -c"
order="sort -k1,1nr -k2,2"

# Map: one task a text, which comes along in the request. Each keeps its file `counts`.
map_task() {
  printf '{"name": "wordcount-map", "command": ["sh", "-c", "%s"], "env": {"LC_ALL": "C"},
           "resources": {"cpu": 0.1, "memory": "33554432"}, "timeout": "60s",
           "inputs": [{"path": "text", "data": "%s"}], "outputs": ["counts"]}' \
    "$(json_text "cat text | $words | $count > counts")" "$(base64 -w0 "$1")"
}

# Reduce: one task with the outputs of all map tasks as its inputs. It starts when they have succeeded.
reduce_task() {
  local inputs="" dependencies="" id
  for id in "$@"; do
    inputs+=", {\"path\": \"parts/$id\", \"taskOutput\": {\"taskId\": \"$id\", \"path\": \"counts\"}}"
    dependencies+=", {\"taskId\": \"$id\"}"
  done
  # The character after `$` belongs to awk.
  local add="awk '{ n[\$2] += \$1 } END { for (w in n) print n[w], w }'"
  printf '{"name": "wordcount-reduce", "command": ["sh", "-c", "%s"], "env": {"LC_ALL": "C"},
           "resources": {"cpu": 0.1, "memory": "33554432"}, "timeout": "60s",
           "inputs": [%s], "dependencies": [%s], "outputs": ["words"]}' \
    "$(json_text "cat parts/* | $add | $order > words")" "${inputs#, }" "${dependencies#, }"
}

json_text() { sed 's/\\/\\\\/g; s/"/\\"/g' <<<"$1"; }

ids=()
for text in "${texts[@]}"; do
  ids+=("$(map_task "$text" | "$cli" task submit -q -f -)")
done
echo "${#ids[@]} map tasks submitted, one a text"

if ! reduce=$(reduce_task "${ids[@]}" | "$cli" task submit -q --wait -f -); then
  echo "wordcount: the reduce task did not succeed; the map tasks:" >&2
  for id in "${ids[@]}"; do "$cli" task get "$id" -o json | grep -E '"(id|status|statusReason)"' >&2 || true; done
  exit 1
fi
"$cli" task download "$reduce" words >"$work/words"

cat "${texts[@]}" | eval "$words | $count" | awk '{ print $1, $2 }' | eval "$order" >"$work/expected"
if ! cmp -s "$work/words" "$work/expected"; then
  echo "wordcount: the tasks counted differently from one pipeline:" >&2
  diff "$work/expected" "$work/words" | head -n 20 >&2
  exit 1
fi
echo "$(wc -l <"$work/words") words, the same as one pipeline counts; the $top most frequent:"
head -n "$top" "$work/words"
