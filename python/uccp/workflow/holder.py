"""The lock of a run, which its driver holds: taken at once from a driver of this machine that is dead, else when its
time to live is over."""

from __future__ import annotations

import functools
import os
import pathlib

from uccp import errors
from uccp.client import Client
from uccp.coordination import Lock

LOCK_TTL_S = 10.0
LOCK_WAIT_S = 30.0


def lock_of(client: Client, run_id: str) -> Lock:
    """What the driver of a run holds."""
    return client.lock(_name(run_id), ttl=LOCK_TTL_S, owner=f"workflow-{_machine()}-{_process('self')}")


def hold(client: Client, run_id: str) -> Lock:
    """Waits for the lock of a run. Raises DeadlineExceeded while another driver is at work."""
    return take(client, run_id) or lock_of(client, run_id).acquire(timeout=LOCK_WAIT_S)


def take(client: Client, run_id: str) -> Lock | None:
    """The lock of a run if nobody drives it."""
    lock = lock_of(client, run_id)
    if lock.try_acquire():
        return lock
    _break_if_dead(client, run_id)
    return lock if lock.try_acquire() else None


def _name(run_id: str) -> str:
    return f"uccp/workflows/{run_id}"


def _break_if_dead(client: Client, run_id: str) -> None:
    """Only a hint: who may not break locks waits."""
    try:
        held = client.call("Coordination/GetLock", name=_name(run_id))
        if _is_dead(held.owner):
            client.call(
                "Coordination/BreakLock",
                name=_name(run_id),
                fencing_token=held.fencing_token,
                reason="the process that held it has ended",
            )
    except (errors.NotFound, errors.PermissionDenied, errors.Conflict, errors.FailedPrecondition):
        pass


def _is_dead(owner: str) -> bool:
    """Whether a process of this machine that gave itself this name has ended."""
    kind, _, rest = owner.partition("-")
    machine, _, process = rest.rpartition("-")
    return kind == "workflow" and machine == _machine() and _process(process.partition(".")[0]) != process


def _process(pid: str) -> str:
    """A process by its id and when it began; empty if there is none."""
    try:
        fields = pathlib.Path("/proc", pid, "stat").read_text()
    except OSError:
        return ""
    after = fields.rpartition(")")[2].split()
    return "" if after[0] == "Z" else f"{fields.partition(' ')[0]}.{after[19]}"


@functools.cache
def _machine() -> str:
    """This machine since it was started, and the space of its process ids that this process is in."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "unknown"
