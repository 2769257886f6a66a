"""The planted bugs: up to which default seed, from 1 on, each has to be caught, and by whom.

Names of checkers are as they report; `fatal` is a node that noticed it by itself, `check` an invariant of the code.
"""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "src"
SIM = pathlib.Path(os.environ.get("UCCP_BIN", ROOT / "build" / "bin")) / "uccp-sim-planted"
RUN_LIMIT_S = 120
CAUGHT_WITHIN = {
    "skip_fsync": (5, {"durability", "apply", "start", "fatal", "digest", "logs", "check"}),
    "trust_torn": (60, {"check", "apply", "digest", "logs", "fatal", "start"}),
    "forget_vote": (250, {"commits", "leaders", "logs", "apply"}),
    "ack_before_persist": (20, {"commits", "durability", "apply", "digest", "logs", "fatal", "check", "progress"}),
    "commit_old_term": (101, {"commits", "logs", "apply", "durability", "leaders", "digest", "check"}),
    "commit_alone": (20, {"commits", "apply", "durability", "digest", "check", "dedup"}),
    "read_unconfirmed": (60, {"order", "linearizability", "freshness"}),
    "ignore_config_on_append": (60, {"commits", "progress", "leaders", "logs", "apply", "check"}),
    "skip_log_matching": (100, {"commits", "logs", "apply", "dedup", "check"}),
    "vote_for_stale": (40, {"commits", "logs", "apply", "leaders", "durability", "check"}),
    "drop_dedup": (10, {"dedup", "durability", "linearizability"}),
    "apply_twice": (5, {"apply", "durability", "kv"}),
    "expire_any_generation": (40, {"ttl", "holds"}),
    "snapshot_without_replies": (15, {"dedup", "apply", "digest", "fatal", "kv"}),
    "watch_gap": (5, {"watch", "kv"}),
    "ignore_bound": (20, {"freshness"}),
    "ignore_token": (20, {"freshness"}),
    "no_fence": (200, {"tasks", "runs"}),
    "reuse_token": (5, {"fencing"}),
    "lost_wakeup": (15, {"queues"}),
    "overtake": (15, {"queues"}),
    "reuse_term": (5, {"terms"}),
    "keep_expired": (10, {"listings", "progress"}),
    "new_quorum_alone": (300, {"commits", "durability", "leaders", "digest", "apply", "logs", "check"}),
    "stale_lease_read": (300, {"linearizability", "order", "freshness"}),
}
# These with clients that mostly publish and read events.
EVENTS_CAUGHT_WITHIN = {
    "forget_producer": (15, {"events"}),
    "skip_batch": (5, {"events"}),
    "trim_much": (5, {"events", "progress"}),
    "lose_kept": (10, {"events", "progress"}),
    "compact_newest": (10, {"events", "progress"}),
    "forget_part": (5, {"transactions", "progress"}),
    "lose_settled": (80, {"transactions"}),
}
# These need a majority that changes sides at one moment, so only the seeds that bring such moments about are run: every
# tenth from here on.
OF_MOMENTS = {"commit_old_term": 1, "new_quorum_alone": 5, "stale_lease_read": 9}
# No seeds are known that catch this: a commit of the server before has to be under way to another node while the
# leadership moves, and to arrive behind the claim of the next one. `BusState.WhoTookASubscriptionOverIsTheOneWhoMovesItsPlaces`
# has that order in hand.
WITHOUT_BOUND = {"old_server"}


def run(seed, bug=None, program=SIM, options=()):
    command = [str(program), "--seed", str(seed), "--quiet"] + (["--plant", bug] if bug else []) + list(options)
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def hunt(bug):
    """The first seed that catches the bug, and who reported it; seed by seed, so that it ends there."""
    events = bug in EVENTS_CAUGHT_WITHIN
    last = (EVENTS_CAUGHT_WITHIN if events else CAUGHT_WITHIN)[bug][0]
    first, step = (OF_MOMENTS[bug], 10) if bug in OF_MOMENTS else (1, 1)
    for seed in range(first, last + 1, step):
        result = run(seed, bug, options=["--events"] if events else [])
        if result.returncode < 0:
            return seed, {"check"}
        if result.returncode == 1:
            return seed, {line.split(":")[0].strip() for line in result.stdout.splitlines() if line.startswith("  ")}
    return None, set()
