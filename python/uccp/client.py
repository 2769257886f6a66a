"""A client of one cluster, and the one that `uccp.init()` makes for the module's functions."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import socket
import threading
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from uccp import context as contexts
from uccp import errors, shared
from uccp.connection import DEFAULT_TIMEOUT_S, Connection
from uccp.coordination import LEADER_TTL_S, LOCK_TTL_S, Election, Keeper, Lock
from uccp.discovery import Discovery
from uccp.events import Events
from uccp.kv import KeyValue
from uccp.objects import Objects
from uccp.refs import Results
from uccp.tasks import Tasks

SUBMITTERS = 8  # calls that are submitted side by side


class Client:
    """Everything of a cluster that this package speaks of; any number of threads may use one.

    `client.call("Service/Method", field=value)` calls any other method of the contract."""

    def __init__(self, context: contexts.Context) -> None:
        self.context = context
        self.connection = Connection(context)
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._keeper = Keeper()
        self.kv = KeyValue(self.connection)
        self.events = Events(self.connection)
        self.discovery = Discovery(self.connection, self._keeper)
        self.tasks = Tasks(self.connection)
        self.objects = Objects(self.connection)
        self.label = uuid.uuid4().hex  # of the tasks whose results come here
        self.results = Results(self.connection, self.label, lambda: self.memory)
        self._submitter: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._memory_lock = threading.Lock()
        self._lanes: dict[str, Any] = {}
        self._garbage: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._collector: threading.Thread | None = None
        self._memory: Any = None
        self._memory_sought = False
        self._channels: weakref.WeakSet[Any] = weakref.WeakSet()

    def submit(self, work: Callable[[], None]) -> None:
        """Runs it on one of the threads that submit calls."""
        with self._lock:
            if self._submitter is None:
                self._submitter = concurrent.futures.ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="uccp-submit")
            self._submitter.submit(work)

    def lanes(self, key: str, make: Callable[[Client], Any]) -> Any:
        """The leased workers for functions of equal options."""
        with self._lock:
            if key not in self._lanes:
                self._lanes[key] = make(self)
            return self._lanes[key]

    def when_garbage(self, holder: Any, work: Callable[[], None]) -> None:
        """Runs `work` on a thread once `holder` is garbage. Not at once: the collector may have interrupted whoever
        holds a lock."""
        with self._lock:
            if self._collector is None:
                self._collector = threading.Thread(target=self._collect, name="uccp-garbage", daemon=True)
                self._collector.start()
        weakref.finalize(holder, self._garbage.put, work).atexit = False

    def _collect(self) -> None:
        while True:
            work = self._garbage.get()
            if work is None:
                return
            work()
            del work  # what it holds is not kept until the next

    def keep_channel(self, channel: Any) -> None:
        """Closed with the client."""
        with self._lock:
            self._channels.add(channel)

    @property
    def memory(self) -> Any:
        """The memory that this process shares with functions on this machine; None if there is none. Another one once
        the agent was started anew."""
        with self._memory_lock:
            if not self._memory_sought or (self._memory is not None and self._memory.gone):
                found = shared.memory_of(self)
                if found is not None or not self._memory_sought:
                    self._memory = found
                self._memory_sought = True
            return None if self._memory is None or self._memory.gone else self._memory

    def call(self, method: str, /, *, within: float | None = DEFAULT_TIMEOUT_S, **fields: Any) -> Any:
        """Calls a method of the contract with the fields of its request, and answers its response, `within`
        seconds."""
        return self.connection.call(method, within=within, **fields)

    def lock(
        self,
        name: str,
        *,
        ttl: float = LOCK_TTL_S,
        timeout: float | None = None,
        shared: bool = False,
        owner: str | None = None,
        priority: int = 0,
    ) -> Lock:
        """A lock to be used with `with`: waits at most `timeout` seconds, is renewed while it is held."""
        return Lock(
            self.connection,
            self._keeper,
            name,
            ttl=ttl,
            timeout=timeout,
            shared=shared,
            owner=owner or f"{self.id}-{uuid.uuid4().hex[:8]}",
            priority=priority,
        )

    def election(
        self,
        group: str,
        *,
        candidate: str | None = None,
        ttl: float = LEADER_TTL_S,
        address: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> Election:
        """A candidacy to be used with `with`: inside, this process leads the group."""
        return Election(
            self.connection,
            self._keeper,
            group,
            candidate=candidate or self.id,
            ttl=ttl,
            address=address,
            priority=priority,
            timeout=timeout,
        )

    def close(self) -> None:
        """Ends what runs in the background. What is held is not given back: it ends with its time to live."""
        self._keeper.stop()
        self._garbage.put(None)
        for channel in list(self._channels):
            channel.close()
        self.results.close()
        if self._memory is not None:
            self._memory.close()
        if self._submitter is not None:
            self._submitter.shutdown(wait=False, cancel_futures=True)
        self.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_client: Client | None = None
_client_lock = threading.Lock()


def connect(
    context_file: str | os.PathLike[str] | None = None,
    *,
    context: str | None = None,
    token: str | None = None,
    namespace: str | None = None,
) -> Client:
    """A client of its own. Raises ContextInvalid."""
    return Client(contexts.load(context_file, name=context, token=token, namespace=namespace))


def init(
    context_file: str | os.PathLike[str] | None = None,
    *,
    context: str | None = None,
    token: str | None = None,
    namespace: str | None = None,
) -> Client:
    """Names the cluster that `uccp.lock`, `uccp.remote` and the others of this module use: a context file, a context
    of the
    command line by name, or the one in use. A second call replaces the first. Raises ContextInvalid."""
    global _client
    made = connect(context_file, context=context, token=token, namespace=namespace)
    with _client_lock:
        before, _client = _client, made
    if before is not None:
        before.close()
    return made


def current() -> Client:
    """The client of init(); the first use without one takes the context in use, as the command line does."""
    global _client
    with _client_lock:
        if _client is None:
            _client = connect()
        return _client


def shutdown() -> None:
    """Ends the client of init(). Idempotent."""
    global _client
    with _client_lock:
        before, _client = _client, None
    if before is not None:
        before.close()


__all__ = ["Client", "connect", "current", "errors", "init", "shutdown"]
