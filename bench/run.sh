#!/bin/bash
# Installs the peers, runs all benchmarks, leaves build/bench/results.jsonl and build/bench/results.md.
#   bench/run.sh [--short] [NAME...]      no names: all
# The exit code is that of uccp-bench: 0 all goals met, 1 some not, 3 something could not run.
set -uo pipefail
cd "$(dirname "$0")/.."

# etcd, redis, ZooKeeper and Slurm are peers, strace counts syncs, nft and ip cut nodes off. Without them their rows say so and are not met.
install_peers() {
  local missing=()
  command -v etcd >/dev/null || missing+=(etcd-server)
  command -v redis-server >/dev/null || missing+=(redis-server)
  [ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
  command -v slurmctld >/dev/null || missing+=(slurmctld slurmd slurm-client munge)
  command -v strace >/dev/null || missing+=(strace)
  command -v nft >/dev/null || missing+=(nftables)
  command -v ip >/dev/null || missing+=(iproute2)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "# not installed, and only root with apt can: ${missing[*]}" >&2
    return 0
  fi
  # Packages start their daemons unless a policy forbids it.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap "rm -f $policy" EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
    { apt-get update >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2; } ||
    echo "# could not install ${missing[*]}" >&2
}

# HyperQueue, in an environment of its own.
install_hyperqueue() {
  local venv=build/venv-bench
  [ ! -e $venv/bin/hyperqueue.installed ] || return 0
  rm -rf $venv
  /usr/bin/python3 -m venv $venv >&2 &&
    $venv/bin/python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: hyperqueue==0.27.0 tqdm==4.70.1 >&2 &&
    touch $venv/bin/hyperqueue.installed || echo "# could not install HyperQueue" >&2
}

# Ray, in an environment of its own, and the Python package beside it.
install_ray() {
  tools/python >&2 || echo "# could not build the Python package" >&2
  tools/ray >&2 || echo "# could not install Ray" >&2
}

# BullMQ, as its lock file says.
install_bullmq() {
  [ ! -e bench/bullmq/node_modules/.package-lock.json ] || return 0
  command -v npm >/dev/null || { echo "# no npm, so no BullMQ" >&2; return 0; }
  (cd bench/bullmq && npm ci --no-audit --no-fund --ignore-scripts >&2) || echo "# could not install BullMQ" >&2
}

# nats-server of this version; Debian's knows no `sync_interval: always`.
install_nats() {
  local version=v2.12.2
  [ ! -e build/bench/bin/nats-server-$version ] || return 0
  command -v go >/dev/null || { echo "# no go, so no nats-server" >&2; return 0; }
  GOBIN=$PWD/build/bench/bin go install github.com/nats-io/nats-server/v2@$version >&2 &&
    touch build/bench/bin/nats-server-$version || echo "# could not install nats-server" >&2
}

options=()
names=()
for word in "$@"; do
  case $word in
    --json) ;;
    --*) options+=("$word") ;;
    *) names+=("$word") ;;
  esac
done
[ ${#names[@]} -gt 0 ] || names=(all)

install_peers
install_hyperqueue
install_ray
install_bullmq
install_nats
export PATH=$PWD/build/bench/bin:$PATH
mkdir -p build/bench
results=build/bench/results.jsonl
: >"$results"
code=0
for name in "${names[@]}"; do
  build/bin/uccp-bench run "$name" --json "${options[@]}" | tee -a "$results"
  one=${PIPESTATUS[0]}
  [ "$one" -le "$code" ] || code=$one
done

python3 - "$results" >build/bench/results.md <<'PYTHON'
import json, sys

def text(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

lines = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
runs = [line for line in lines if "rows" in line]
if runs:
    short = ", short samples" if runs[0].get("short") else ""
    print(f"Commit {runs[0]['commit']}, {runs[0]['cores']} cores{short}. The load generator runs on the same cores.\n")
print("| row | ours | peer | ratio | goal | met | syncs an operation (ours, peer) |")
print("| --- | ---: | ---: | ---: | --- | --- | --- |")
for run in runs:
    for row in run["rows"]:
        unit = f" {row['unit']}" if row["unit"] else ""
        peer = f"{text(row['peer'])} ({row['peerName']})" if row["peer"] is not None else ""
        syncs = row["syncsPerOp"]
        synced = f"{text(syncs['ours'])}, {text(syncs['peer'])}" if row["durable"] else ""
        met = "yes" if row["met"] else "**no**" + (f": {row['problem']}" if "problem" in row else "")
        print(f"| {row['metric']} | {text(row['ours'])}{unit} | {peer} | {text(row['ratio'])} | {row['goal']} | {met} | {synced} |")
    if "error" in run:
        print(f"| {run['name']} | | | | | **no**: {run['error']} | |")
PYTHON
echo "# build/bench/results.jsonl, build/bench/results.md" >&2
exit "$code"
