#!/usr/bin/env bash
# Starts a cluster of N nodes on this machine and returns when it serves.
#
#   scripts/start-cluster.sh [--nodes N] [--data-dir DIR] [--ports auto] [--agents N] [--timeout SECONDS]
#
# Defaults: 3 nodes, ./data, fixed ports (gRPC 50000, 50010, ...). DIR/cluster.json then says where everything is; uccp-cli
# takes it as --context-file. On a directory that has a cluster it starts the nodes that do not run. The nodes outlive
# this script; scripts/stop-cluster.sh stops them. docs/cluster.md has the details.
set -euo pipefail

nodes=3 dir=./data ports='' agents=0 timeout=60
while [ $# -gt 0 ]; do
  case $1 in
    --*) [ $# -gt 1 ] || [ "$1" = --help ] || { echo "error: $1 needs a value" >&2; exit 2; } ;;&
    --nodes) nodes=$2; shift 2 ;;
    --data-dir) dir=$2; shift 2 ;;
    --ports) ports=$2; shift 2 ;;
    --agents) agents=$2; shift 2 ;;
    --timeout) timeout=$2; shift 2 ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: unknown argument $1; see --help" >&2; exit 2 ;;
  esac
done
bin=${UCCP_BIN:-$(cd "$(dirname "$0")/../build/bin" && pwd)}
for program in uccp uccp-cli; do
  [ -x "$bin/$program" ] || { echo "error: $bin/$program is missing; build it with 'make build-core'" >&2; exit 1; }
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# What configures one node must not configure all of them.
for key in $("$bin/uccp" config explain | awk '{print toupper($1)}'); do unset "$key"; done

"$bin/uccp" cluster init --data-dir "$dir" --nodes "$nodes" ${ports:+--ports "$ports"}

# Runs a command in a session of its own that holds no descriptor of ours.
detached() { # LOG COMMAND...
  local log=$1
  shift
  (
    exec </dev/null >>"$log" 2>&1
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if [ "$fd" -gt 2 ]; then eval "exec $fd>&-" 2>/dev/null || true; fi
    done
    exec setsid nohup "$@"
  ) &
}

runs() { # PID WORD: the process exists and its command line has the word
  [ -n "$1" ] && { tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"; } 2>/dev/null
}

# GET over plain HTTP, the status line only.
answers() { # HOST:PORT PATH
  local line=''
  exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
  read -r -t 2 line <&3 || true
  exec 3>&-
  [[ $line == *' 200 '* ]]
}

declare -A pid_of
for config in "$dir"/n[0-9]*/uccp.yaml; do
  node_dir=${config%/uccp.yaml}
  name=${node_dir##*/}
  old=$(cat "$node_dir/uccp.pid" 2>/dev/null || true)
  if runs "$old" "$config"; then
    pid_of[$name]=$old
    continue
  fi
  rm -f "$node_dir/node.json"
  detached "$node_dir/uccp.log" "$bin/uccp" --config "$config"
  pid_of[$name]=$!
  echo $! >"$node_dir/uccp.pid"
done

fail() {
  echo "error: $1" >&2
  exit 1
}

end=$((SECONDS + timeout))
for name in "${!pid_of[@]}"; do
  json=$dir/$name/node.json
  metrics=''
  until [ -n "$metrics" ] && answers "$metrics" /health/ready 2>/dev/null; do
    kill -0 "${pid_of[$name]}" 2>/dev/null || fail "$name ended: $(tail -n 3 "$dir/$name/uccp.log")"
    [ $SECONDS -lt $end ] || fail "$name is not ready after $timeout s; see $dir/$name/uccp.log"
    [ -e "$json" ] && metrics=$(sed -n 's/.*"metrics":"\([^"]*\)".*/\1/p' "$json")
    sleep 0.05
  done
done
"$bin/uccp" cluster context --data-dir "$dir"
# The whole way once: a client, a node, the leader.
until "$bin/uccp-cli" --context-file "$dir/cluster.json" --timeout 5s cluster status >/dev/null 2>&1; do
  [ $SECONDS -lt $end ] || fail "the cluster does not answer after $timeout s; see $dir/n*/uccp.log"
  sleep 0.05
done

for ((k = 1; k <= agents; k++)); do
  agent_dir=$dir/agents/a$k
  mkdir -p "$agent_dir"
  old=$(cat "$agent_dir/agent.pid" 2>/dev/null || true)
  runs "$old" "$agent_dir" && continue
  detached "$agent_dir.log" "$bin/uccp-agent" --data-dir "$agent_dir" --context-file "$dir/cluster.json" --name "a$k"
  # Nothing refers to it once it is written: the agent's own file names it.
  agent=$!
  until [ "$(cat "$agent_dir/agent.pid" 2>/dev/null || true)" = "$agent" ]; do
    kill -0 "$agent" 2>/dev/null || fail "agent a$k ended: $(tail -n 3 "$agent_dir.log")"
    [ $SECONDS -lt $end ] || fail "agent a$k did not start; see $agent_dir.log"
    sleep 0.05
  done
done
if [ "$agents" -gt 0 ]; then
  until [ "$("$bin/uccp-cli" --context-file "$dir/cluster.json" worker list -o json 2>/dev/null | grep -c '"READY"')" -ge "$agents" ]; do
    [ $SECONDS -lt $end ] || fail "the agents are not connected after $timeout s; see $dir/agents"
    sleep 0.1
  done
fi
echo "cluster of ${#pid_of[@]} nodes serves; context file: $dir/cluster.json"
