"""Calls that are not tasks of their own: they go straight to worker processes that this client has leased.

A lease is an actor whose object runs whatever function it is given. Calls wait here until a lease has room, so that a
long one holds up only what was given to its lease with it: one call while calls take long, hundreds while they take
microseconds. When a process dies, what it had is run again by itself, so that only the call that ends its process
fails; and in one that is known to live, since others may have died with it. Leases that nothing uses end after a while.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uccp_worker
from uccp import errors, serialization
from uccp.actors import Packed, arguments, lease, packed_arguments, prepared
from uccp.client import Client
from uccp.functions import Options
from uccp.lineage import AGAIN_MAX, Recipe
from uccp.refs import NO_TASK, DirectCall, ObjectRef, settled, shared_of, when_ended

IDLE_S = 5.0
AHEAD_S = 0.01  # of work that a lease has at a time, once it is known how long calls take
AHEAD_CALLS = 500
FIRST_GUESS_S = 0.005
SHARE = 0.3  # of the newest measurement in what is known


class Code:
    """A function as it travels: pickled once."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        serialization.take_along(getattr(function, "__module__", None))
        self.content = serialization.dumps(function, f"the function {name}")
        self.digest = hashlib.sha256(self.content).hexdigest()


class Waiting:
    """A call that has no value yet."""

    __slots__ = ("alone", "args", "call", "code", "kwargs", "packed", "restores", "retries")

    def __init__(
        self, call: DirectCall, code: Code, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.call = call
        self.code = code
        self.args = args
        self.kwargs = kwargs
        self.restores = AGAIN_MAX
        self.packed = Packed(b"")
        self.retries = retries
        self.alone = False

    def fill(self) -> None:
        digest = self.code.digest
        self.packed = packed_arguments(self.args, self.kwargs, "the function", lambda *given: ((digest, *given), {}))


def lacks_something(result: Any) -> bool:
    if result.value.content_type != uccp_worker.ERROR:
        return False
    return bool(serialization.payload_value(result.value)["type"] == "ObjectLost")


class Lane:
    """A lease, and what it has been given."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.attached = False
        self.sure = True  # it was heard of since a process was lost
        self.known: set[str] = set()  # digests of functions that it has
        self.given = 0
        self.alone = False
        self.seconds = FIRST_GUESS_S  # of a call
        self.measured = time.monotonic()
        self.ended = 0  # calls since then

    def room(self, alone: bool) -> int:
        if not self.attached or self.alone or (alone and (self.given or not self.sure)):
            return 0
        return min(AHEAD_CALLS, max(1, int(AHEAD_S / self.seconds))) - self.given

    def has_ended(self) -> None:
        self.given -= 1
        self.ended += 1
        if self.given and self.ended < AHEAD_CALLS // 4:
            return
        now = time.monotonic()
        self.seconds += SHARE * ((now - self.measured) / self.ended - self.seconds)
        self.measured, self.ended = now, 0


class Lanes:
    """The leases for functions of equal options, and the calls that wait for them."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client = client
        self._options = options
        self._lock = threading.RLock()
        self._queue: deque[Waiting] = deque()
        self._lanes: list[Lane] = []
        self._idle: threading.Timer | None = None

    def call(self, code: Code, args: Sequence[Any], kwargs: Mapping[str, Any], retries: int) -> ObjectRef[Any]:
        call = DirectCall(NO_TASK, self)
        waiting = Waiting(call, code, retries, args, kwargs)
        awaited = [one for one in (*args, *kwargs.values()) if isinstance(one, ObjectRef) and shared_of(one) is None]
        if not awaited:
            waiting.fill()
            self._enter(waiting)
            return ObjectRef(call)

        def resolve() -> None:
            try:
                waiting.fill()
                self._enter(waiting)
            except errors.UccpError as error:
                call.take(None, error)

        when_ended(awaited, lambda: self._client.submit(resolve))
        return ObjectRef(call)

    def _enter(self, waiting: Waiting) -> None:
        with self._lock:
            self._queue.append(waiting)
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            self._dispatch()

    def _dispatch(self) -> None:
        """Gives what waits to leases that have room; asks for one more while something still waits."""
        while self._queue:
            alone = self._queue[0].alone
            lane = max(self._lanes, key=lambda one: one.room(alone), default=None)
            if lane is None or lane.room(alone) <= 0:
                break
            self._give(lane, self._queue.popleft())
        if self._queue and self._queue[0].alone:
            for lane in self._lanes:
                if lane.attached and not lane.sure and not lane.given:
                    self._ask(lane, self._queue[0].code)
        if self._queue and len(self._lanes) < self._options.lanes and all(one.attached for one in self._lanes):
            self._start()

    def _give(self, lane: Lane, waiting: Waiting) -> None:
        if lane.given == 0:
            lane.measured, lane.ended = time.monotonic(), 0
        lane.given += 1
        lane.alone = waiting.alone
        channel = lane.handle._channel
        if waiting.code.digest not in lane.known:
            self._load(lane, waiting.code, lambda result, error: None)

        def take(result: Any, error: errors.UccpError | None) -> None:
            self._ended(lane, waiting, result, error)

        channel.call(prepared(channel, "run", waiting.packed, take, 0))

    def _load(self, lane: Lane, code: Code, take: Callable[[Any, errors.UccpError | None], None]) -> None:
        lane.known.add(code.digest)
        channel = lane.handle._channel
        channel.call(
            prepared(channel, "load", Packed(arguments((code.digest, code.content), {}, "the function")), take, 0)
        )

    def _ask(self, lane: Lane, code: Code) -> None:
        """Whether it lives."""
        lane.given += 1

        def take(result: Any, error: errors.UccpError | None) -> None:
            with self._lock:
                lane.given -= 1
                lane.sure = True
                if error is not None:
                    self._lose(lane)
                self._go_on()

        self._load(lane, code, take)

    def _go_on(self) -> None:
        if self._queue:
            self._dispatch()
        elif not any(one.given for one in self._lanes):
            self._rest()

    def _lose(self, lane: Lane) -> None:
        if lane in self._lanes:
            self._lanes.remove(lane)
        for other in self._lanes:
            other.sure = False

    def _ended(self, lane: Lane, waiting: Waiting, result: Any, error: errors.UccpError | None) -> None:
        again = False
        with self._lock:
            lane.has_ended()
            lane.alone = False
            lane.sure = True
            if error is not None:
                self._lose(lane)
            if isinstance(error, errors.ActorDied) and error.reason == "ACTOR_ENDED" and not self._is_refusal(error):
                again = not waiting.alone or waiting.retries > 0
                if again:
                    waiting.retries -= 1 if waiting.alone else 0
                    waiting.alone = True
                    self._queue.appendleft(waiting)
            self._go_on()
        if again:
            return
        if isinstance(error, errors.ActorDied) and isinstance(error.__cause__, errors.TaskError):
            error = error.__cause__
        if result is not None and result.failed and waiting.restores and lacks_something(result):
            waiting.restores -= 1
            return self._client.submit(lambda: self._restore(waiting))
        if result is not None and result.value.content_type in (uccp_worker.SHARED, uccp_worker.ELSEWHERE):
            waiting.call.recipe = self._recipe(waiting.code, waiting.retries, waiting.args, waiting.kwargs)
        waiting.call.take(result, error)

    def _recipe(self, code: Code, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Recipe:
        return Recipe(lambda args, kwargs: self.call(code, args, kwargs, retries), args, kwargs)

    def _restore(self, waiting: Waiting) -> None:
        """An argument or the code is lost: it is made or given again, and so is the call."""
        try:
            for one in (*waiting.args, *waiting.kwargs.values()):
                settled(one)
            waiting.fill()
        except errors.UccpError as error:
            return waiting.call.take(None, error)
        self._enter(waiting)

    @staticmethod
    def _is_refusal(error: errors.ActorDied) -> bool:
        """The lease never came to life: what is tried again would end the same way."""
        cause = error.__cause__
        return not isinstance(cause, (errors.WorkerCrashed, errors.TaskCancelled))

    def _rest(self) -> None:
        if self._idle is not None:
            return
        mine = weakref.ref(self)

        def leave() -> None:
            lanes = mine()
            if lanes is not None:
                lanes._leave()

        self._idle = threading.Timer(IDLE_S, leave)
        self._idle.daemon = True
        self._idle.start()

    def _leave(self) -> None:
        with self._lock:
            self._idle = None
            if self._queue or any(one.given for one in self._lanes):
                return
            for lane in self._lanes:
                lane.handle = None  # and with it goes the lease
            self._lanes.clear()

    def _start(self) -> None:
        lane = Lane(None)
        self._lanes.append(lane)
        mine = weakref.ref(self)

        def attached() -> None:
            lanes = mine()
            if lanes is None:
                return
            with lanes._lock:
                lane.attached = lane.sure = True
                lane.known.clear()  # it may be another process, after a machine was lost
                lanes._dispatch()

        def failed(error: errors.UccpError) -> None:
            lanes = mine()
            if lanes is not None:
                lanes._refused(lane, error)

        lane.handle = lease(self._client, self._options, attached, failed)

    def _refused(self, lane: Lane, error: errors.UccpError) -> None:
        """A lease ended that had nothing to do. If it never came to life and is the only one, so do the calls."""
        with self._lock:
            if lane not in self._lanes:
                return
            self._lose(lane)
            waiting: list[Waiting] = []
            if lane.attached:
                self._dispatch()
            elif not self._lanes:
                waiting, self._queue = list(self._queue), deque()
        cause = error.__cause__ if isinstance(error.__cause__, errors.UccpError) else error
        for one in waiting:
            one.call.take(None, cause)
