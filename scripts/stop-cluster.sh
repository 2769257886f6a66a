#!/usr/bin/env bash
# Stops the nodes and agents that scripts/start-cluster.sh started.
#
#   scripts/stop-cluster.sh [--data-dir DIR] [--timeout SECONDS]
#
# Agents first, then all nodes. One that does not end in time is killed. The data stays.
set -euo pipefail

dir=./data timeout=30
while [ $# -gt 0 ]; do
  case $1 in
    --*) [ $# -gt 1 ] || [ "$1" = --help ] || { echo "error: $1 needs a value" >&2; exit 2; } ;;&
    --data-dir) dir=$2; shift 2 ;;
    --timeout) timeout=$2; shift 2 ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: unknown argument $1; see --help" >&2; exit 2 ;;
  esac
done
[ -d "$dir" ] || { echo "error: there is no directory $dir" >&2; exit 1; }
dir=$(cd "$dir" && pwd)

# Ids of the processes that a pid file names, if they still are what it says.
running() { # WORD PIDFILE...
  local word=$1 file pid
  shift
  for file in "$@"; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    # shellcheck disable=SC2015
    { tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$word"; } 2>/dev/null && echo "$pid" || true
  done
}

stop() { # PID...
  [ $# -gt 0 ] || return 0
  kill -TERM "$@" 2>/dev/null || true
  local end=$((SECONDS + timeout)) pid
  for pid in "$@"; do
    while kill -0 "$pid" 2>/dev/null && [ "$(awk '/^State/{print $2}' "/proc/$pid/status" 2>/dev/null)" != Z ]; do
      if [ $SECONDS -ge $end ]; then
        echo "warning: process $pid did not stop in $timeout s and is killed" >&2
        kill -KILL "$pid" 2>/dev/null || true
      fi
      sleep 0.05
    done
  done
}

mapfile -t agents < <(running "$dir/agents" "$dir"/agents/*/agent.pid)
stop "${agents[@]}"
mapfile -t nodes < <(running "$dir/" "$dir"/n[0-9]*/uccp.pid)
stop "${nodes[@]}"
rm -f "$dir"/n[0-9]*/uccp.pid "$dir/cluster.json"
echo "stopped ${#nodes[@]} nodes and ${#agents[@]} agents"
