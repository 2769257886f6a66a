"""Locks and elections whose holds are renewed in the background.

A hold says through `lost` that it ended without its holder (the cluster could not be reached for its whole time to
live,
or it was broken or preempted). `fencing_token` grows with each hold: give it to whatever the lock protects, so that
it can
refuse what an earlier holder still sends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from uccp import _contract, errors
from uccp.connection import Connection, Stream

LOCK_TTL_S = 30.0
LEADER_TTL_S = 15.0
RENEWALS_PER_TTL = 3


class Keeper:
    """One thread that renews what is held, each a third of its time to live after the last time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._due: dict[int, tuple[float, float, Callable[[], bool]]] = {}
        self._next_id = 0
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, interval: float, renew: Callable[[], bool]) -> int:
        """Calls `renew` every `interval` seconds until it answers False or remove()."""
        with self._condition:
            self._next_id += 1
            self._due[self._next_id] = (time.monotonic() + interval, interval, renew)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="uccp-keeper", daemon=True)
                self._thread.start()
            self._condition.notify()
            return self._next_id

    def remove(self, number: int) -> None:
        with self._condition:
            self._due.pop(number, None)

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._due.clear()
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped:
                    wait = min((due for due, _, _ in self._due.values()), default=None)
                    left = None if wait is None else wait - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    self._condition.wait(left)
                if self._stopped:
                    return
                number, (_, interval, renew) = min(self._due.items(), key=lambda one: one[1][0])
                self._due[number] = (time.monotonic() + interval, interval, renew)
            if not renew():
                self.remove(number)


class Hold:
    """What locks and leaderships have in common: a lease that is renewed until it is given back or lost."""

    def __init__(self, connection: Connection, keeper: Keeper, ttl: float) -> None:
        self._connection = connection
        self._keeper = keeper
        self._ttl = ttl
        self._renewal = 0
        self._renewed = 0.0
        self._lost = threading.Event()
        self.lease_id = ""
        self.fencing_token = 0

    @property
    def lost(self) -> bool:
        """True: the hold ended without its holder."""
        return self._lost.is_set()

    @property
    def held(self) -> bool:
        """True while it is held, as far as this process knows: its time to live has not passed since the last
        renewal."""
        return bool(self.lease_id) and not self.lost and time.monotonic() < self._renewed + self._ttl

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Waits until the hold is lost; False after `timeout`."""
        return self._lost.wait(timeout)

    def _begin(self, asked: float, lease_id: str, token: int) -> None:
        self.lease_id, self.fencing_token = lease_id, token
        self._renewed = asked
        self._lost.clear()
        self._renewal = self._keeper.add(self._ttl / RENEWALS_PER_TTL, self._renew)

    def _end(self) -> None:
        self._keeper.remove(self._renewal)
        self.lease_id = ""

    def _renew_once(self, timeout: float) -> None:
        raise NotImplementedError

    def _renew(self) -> bool:
        if not self.lease_id:
            return False
        asked = time.monotonic()
        try:
            self._renew_once(self._ttl / RENEWALS_PER_TTL)
            self._renewed = asked
        except (errors.Unavailable, errors.DeadlineExceeded, errors.OutcomeUnknown, errors.Exhausted):
            # Its time to live decides; tried again at the next turn.
            if time.monotonic() >= self._renewed + self._ttl:
                self._lost.set()
        except errors.UccpError:
            self._lost.set()
        return not self._lost.is_set()


class Lock(Hold):
    """A lock: `with uccp.lock("orders/42"):` or acquire() and release(). Not for use by several threads at once.

    Leaving the `with` block raises LeaseLost if the hold was lost inside it."""

    def __init__(
        self,
        connection: Connection,
        keeper: Keeper,
        name: str,
        *,
        ttl: float = LOCK_TTL_S,
        timeout: float | None = None,
        shared: bool = False,
        owner: str | None = None,
        priority: int = 0,
    ) -> None:
        super().__init__(connection, keeper, ttl)
        self.name = name
        self._timeout = timeout
        self._fields: dict[str, Any] = {
            "name": name,
            "ttl": ttl,
            "owner": owner,
            "priority": priority or None,
            "type": "SHARED" if shared else "EXCLUSIVE",
        }

    def acquire(self, timeout: float | None = None) -> Lock:
        """Waits for the lock, at most `timeout` seconds (default the lock's own, else without end).

        Raises DeadlineExceeded when it was not free in time; Conflict when waiting would be a deadlock."""
        if self.lease_id:
            raise errors.FailedPrecondition(
                f"the lock {self.name} is held by this object already", reason="LOCK_HELD"
            )
        wait = self._timeout if timeout is None else timeout
        asked = time.monotonic()
        lock = self._connection.call(
            "Coordination/AcquireLock", within=None if wait is None else wait + 30, wait_timeout=wait, **self._fields
        )
        # It may have waited: the time to live of a hold that waited counts from its beginning, which is no earlier
        # than
        # the answer less what it took to come.
        self._begin(max(asked, time.monotonic() - self._ttl / RENEWALS_PER_TTL), lock.lease_id, lock.fencing_token)
        return self

    def try_acquire(self) -> bool:
        """Takes the lock if it is free now."""
        asked = time.monotonic()
        fields = {key: value for key, value in self._fields.items() if key != "priority"}
        try:
            lock = self._connection.call("Coordination/TryLock", **fields)
        except errors.AlreadyExists:
            return False
        self._begin(asked, lock.lease_id, lock.fencing_token)
        return True

    def release(self) -> None:
        """Gives it back. Raises LeaseLost when it was lost before."""
        lease_id, lost = self.lease_id, self.lost
        self._end()
        try:
            self._connection.call("Coordination/ReleaseLock", name=self.name, lease_id=lease_id)
        except (errors.NotFound, errors.FailedPrecondition, errors.Conflict):
            lost = True
        if lost:
            raise errors.LeaseLost(
                f"the lock {self.name} was lost before it was released: what was done under it may "
                "have overlapped with another holder; check its fencing token",
                reason="LOCK_LOST",
            )

    def _renew_once(self, timeout: float) -> None:
        self._connection.call(
            "Coordination/RenewLock", within=timeout, name=self.name, lease_id=self.lease_id, ttl=self._ttl
        )

    async def __aenter__(self) -> Lock:
        return await asyncio.to_thread(self.acquire)

    async def __aexit__(self, kind: Any, *error: object) -> None:
        await asyncio.to_thread(self.__exit__, kind, *error)

    def __enter__(self) -> Lock:
        return self.acquire()

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.release()
        except errors.UccpError:
            if kind is None:  # an exception on its way is more important
                raise


class Election(Hold):
    """A candidacy in a group of which one member leads: `with uccp.election("scheduler") as leadership:`"""

    def __init__(
        self,
        connection: Connection,
        keeper: Keeper,
        group: str,
        *,
        candidate: str,
        ttl: float = LEADER_TTL_S,
        address: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> None:
        super().__init__(connection, keeper, ttl)
        self.group = group
        self.candidate = candidate
        self._timeout = timeout
        self._candidate = {"id": candidate, "address": address or None, "priority": priority or None}

    def campaign(self, timeout: float | None = None) -> Election:
        """Waits until this candidate leads. Raises DeadlineExceeded after `timeout` seconds."""
        wait = self._timeout if timeout is None else timeout
        end = None if wait is None else time.monotonic() + wait
        while True:
            # The candidacy lasts only its time to live, so it is entered anew before that is over.
            step = self._ttl / 2 if end is None else max(0.0, min(self._ttl / 2, end - time.monotonic()))
            asked = time.monotonic()
            try:
                election = self._connection.call(
                    "Coordination/ElectLeader",
                    within=step + 30,
                    group=self.group,
                    candidate=self._candidate,
                    ttl=self._ttl,
                    wait_timeout=step,
                )
            except errors.DeadlineExceeded:
                if end is not None and time.monotonic() >= end:
                    raise
                continue
            if election.is_leader:
                self._begin(
                    max(asked, time.monotonic() - self._ttl / RENEWALS_PER_TTL),
                    election.lease_id,
                    election.fencing_token,
                )
                return self
            if end is not None and time.monotonic() >= end:
                raise errors.DeadlineExceeded(
                    f"{self.candidate} does not lead {self.group}; {election.leader.id} does",
                    reason="ELECTION_WAIT_TIMEOUT",
                )

    def resign(self) -> None:
        """Stops leading and leaves. Idempotent."""
        lease_id = self.lease_id
        self._end()
        if not lease_id:
            return
        try:
            self._connection.call("Coordination/ResignLeadership", group=self.group, lease_id=lease_id)
        except (errors.NotFound, errors.FailedPrecondition, errors.Conflict):
            self._lost.set()

    def leader(self) -> str:
        """Id of whoever leads now; empty: nobody."""
        try:
            return str(self._connection.call("Coordination/GetLeader", group=self.group).leader.id)
        except errors.NotFound:
            return ""

    def watch(self) -> Iterator[str]:
        """Yields the leader's id now and at each change; empty: nobody leads."""
        stream: Stream = self._connection.stream("Coordination/WatchLeader", group=self.group)
        with stream:
            last = None
            for event in stream:
                now = str(event.election.leader.id) if _contract.enum_name(event, "kind") != "LEADERLESS" else ""
                if now != last:
                    last = now
                    yield now

    def _renew_once(self, timeout: float) -> None:
        self._connection.call(
            "Coordination/RenewLeadership", within=timeout, group=self.group, lease_id=self.lease_id
        )

    async def __aenter__(self) -> Election:
        return await asyncio.to_thread(self.campaign)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.resign)

    def __enter__(self) -> Election:
        return self.campaign()

    def __exit__(self, *_: object) -> None:
        self.resign()
