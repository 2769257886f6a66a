"""Stream processing on topics: windows by the time of events, state by key, results exactly once.

    from uccp import streams

    per_minute = streams.Processor(
        "clicks-per-minute", "clicks",
        key=lambda event: event.payload["user"],
        window=streams.tumbling(60),
        initial=0, add=lambda count, event: count + 1,
        output="clicks.per-minute")
    per_minute.run()

A processor goes on where its last checkpoint says, which has the state of all windows and the position in the topic in
one object: an event counts once in the state, whatever dies. Results that were published after the last checkpoint
are published again after a crash, with the same ids, so the output topic takes them once within its `dedupWindow`.
docs/streams.md explains it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from uccp import errors, serialization
from uccp.client import Client, current
from uccp.connection import Stream
from uccp.events import Event

FORMAT = 1
STORE = "streams"
CHECKPOINT_S = 5.0
CHECKPOINT_EVENTS = 1000
IDLE_S = 30.0
PUBLISH_MAX = 100  # results in one request
MISSING = object()


@dataclasses.dataclass(frozen=True)
class Window:
    """A span of time, in seconds since the epoch: from `start` on, before `end`."""

    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Windowing:
    """How times become windows: by tumbling(), sliding() or session()."""

    size: float
    step: float
    gap: float = 0.0  # of sessions

    def of(self, moment: float) -> list[Window]:
        """The windows that a moment is in; of a session the one that it makes by itself."""
        if self.gap:
            return [Window(moment, moment + self.gap)]
        found = []
        start = moment - moment % self.step
        while start > moment - self.size:
            found.append(Window(start, start + self.size))
            start -= self.step
        return found[::-1]


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            why = f"{name} of a window is more than 0 seconds, not {value}"
            raise errors.InvalidRequest(why, reason="WINDOW_INVALID")


def tumbling(size: float) -> Windowing:
    """Windows of `size` seconds, one after the other."""
    _positive(size=size)
    return Windowing(size, size)


def sliding(size: float, step: float) -> Windowing:
    """Windows of `size` seconds, one beginning every `step` seconds."""
    _positive(size=size, step=step)
    if step > size:
        raise errors.InvalidRequest("windows that begin every `step` seconds have at least that size: events between "
                                    "them would be in none", reason="WINDOW_INVALID")
    return Windowing(size, step)


def session(gap: float) -> Windowing:
    """Windows that last until nothing has come for `gap` seconds."""
    _positive(gap=gap)
    return Windowing(gap, gap, gap)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a window came to. `id` is the same however often it is made."""

    key: Any
    window: Window
    value: Any
    id: str


@dataclasses.dataclass
class _State:
    """All that a checkpoint has."""

    cursor: str = ""
    offsets: dict[tuple[str, int], int] = dataclasses.field(default_factory=dict)
    newest: dict[tuple[str, int], float] = dataclasses.field(default_factory=dict)  # times, by partition
    windows: dict[Any, dict[Window, Any]] = dataclasses.field(default_factory=dict)
    watermark: float = float("-inf")
    events: int = 0
    late: int = 0


class Processor:
    """Reads a topic, keeps a value for each key and window, and publishes it when the window is over.

    A window is over when the watermark has passed its end: the oldest of the partitions' newest times, less `lateness`
    seconds. A partition from which nothing has come for `idle` seconds does not count. Events for windows that are
    over are counted as `late` and left out."""

    def __init__(
        self,
        name: str,
        topic: str,
        *,
        add: Callable[[Any, Event], Any],
        initial: Any = None,
        key: Callable[[Event], Any] = lambda event: event.key,
        time: Callable[[Event], float] | None = None,
        window: Windowing,
        merge: Callable[[Any, Any], Any] | None = None,
        lateness: float = 0.0,
        idle: float = IDLE_S,
        output: str | Callable[[Result], None] | None = None,
        checkpoint_events: int = CHECKPOINT_EVENTS,
        checkpoint_seconds: float = CHECKPOINT_S,
        client: Client | None = None,
    ) -> None:
        if window.gap and merge is None:
            raise errors.InvalidRequest(
                "sessions that meet become one: `merge` says how their values do", reason="MERGE_MISSING"
            )
        if lateness < 0:
            raise errors.InvalidRequest(f"lateness is 0 seconds or more, not {lateness}", reason="FIELD_INVALID")
        self.name = name
        self.topic = topic
        self._add, self._initial, self._key, self._time = add, initial, key, time or published_at
        self._windowing, self._merge, self._lateness, self._idle, self._output = window, merge, lateness, idle, output
        self._partitions: list[tuple[str, int]] = []  # of the topic, those that have no events too
        self._heard: dict[tuple[str, int], float] = {}  # when something came from a partition
        self._every_events, self._every_seconds = checkpoint_events, checkpoint_seconds
        self._client = client
        self._state = _State()
        self._etag: str | None = None
        self._stream: Stream | None = None
        self._stopped = False
        self._lock = threading.Lock()

    # --- what is known ---

    @property
    def watermark(self) -> float:
        """No more events before this time are counted; minus infinity at first. It never goes back."""
        return self._state.watermark

    def _advance(self) -> None:
        now = time.monotonic()
        newest = self._state.newest
        counted = {place for place in {*self._partitions, *newest} if now - self._heard.get(place, now) < self._idle}
        reached = min((newest.get(place, float("-inf")) for place in counted or newest), default=float("-inf"))
        self._state.watermark = max(self._state.watermark, reached - self._lateness)

    @property
    def late(self) -> int:
        """Events that came after their windows were over."""
        return self._state.late

    @property
    def events(self) -> int:
        """Events that have been counted since the processor was made for the first time."""
        return self._state.events

    def open_windows(self) -> dict[Any, dict[Window, Any]]:
        """The values of windows that are not over, by key."""
        return {key: dict(windows) for key, windows in self._state.windows.items()}

    # --- running ---

    def run(self, *, follow: bool = True, flush: bool = False) -> None:
        """Processes until stop(), or with `follow=False` until the end of what there is; `flush` then ends all windows.
        Raises Conflict when another process runs the same processor."""
        client = self._client or current()
        self._load(client)
        described = client.call("EventBus/GetTopicMetadata", name=self.topic)
        self._partitions = [(self.topic, number) for number in range(described.partitions)]
        self._heard = dict.fromkeys(self._partitions, time.monotonic())
        with self._lock:
            if self._stopped:
                return
            self._stream = client.connection.stream(
                "EventBus/Subscribe",
                topics=[self.topic],
                since=self._state.cursor or None,
                start=None if self._state.cursor else "EARLIEST",
                no_follow=not follow or None,
            )
        done, last = 0, time.monotonic()
        with self._stream as stream:
            for item in stream:
                if item.HasField("event"):
                    event = client.events._event(item, None)
                    self._publish(client, self.take(event))
                    done += 1
                self._state.cursor = item.cursor or self._state.cursor
                if done and (done >= self._every_events or time.monotonic() - last >= self._every_seconds):
                    self._save(client)
                    done, last = 0, time.monotonic()
                if self._stopped:
                    break
        if flush and not self._stopped:
            self._publish(client, self._over(float("inf")))
        self._save(client)

    def stop(self) -> None:
        """Ends run() after the event that it is at, from any thread; the checkpoint is kept."""
        with self._lock:
            self._stopped = True
            stream = self._stream
        if stream is not None:
            stream.close()

    def forget(self) -> None:
        """Removes the checkpoint: the next run begins with the first event."""
        client = self._client or current()
        try:
            client.objects.delete(self.name, store=STORE, missing_ok=True)
        except errors.NotFound:
            pass
        self._state, self._etag = _State(), None

    # --- events ---

    def take(self, event: Event) -> list[Result]:
        """Counts an event, once, and answers the results of the windows that are over by it."""
        place = (event.topic, event.partition)
        if event.offset <= self._state.offsets.get(place, -1):
            return []
        self._state.offsets[place] = event.offset
        self._state.events += 1
        moment = self._time(event)
        key = self._key(event)
        windows = [one for one in self._windowing.of(moment) if one.end > self.watermark]
        self._state.late += not windows
        for window in windows:
            self._count(key, window, event)
        self._state.newest[place] = max(moment, self._state.newest.get(place, float("-inf")))
        self._heard[place] = time.monotonic()
        self._advance()
        return self._over(self.watermark)

    def _count(self, key: Any, window: Window, event: Event) -> None:
        windows = self._state.windows.setdefault(key, {})
        before = windows.get(window, MISSING)
        value = self._add(self._fresh() if before is MISSING else before, event)
        if self._windowing.gap:
            for other in [one for one in windows if one.start <= window.end and window.start <= one.end]:
                kept = windows.pop(other)
                if other != window:
                    assert self._merge is not None
                    value = self._merge(kept, value)
                    window = Window(min(window.start, other.start), max(window.end, other.end))
        windows[window] = value

    def _fresh(self) -> Any:
        """The initial value, which one that can be changed is not shared."""
        return self._initial() if callable(self._initial) else pickle.loads(pickle.dumps(self._initial))

    def _over(self, watermark: float) -> list[Result]:
        found: list[Result] = []
        for key in list(self._state.windows):
            windows = self._state.windows[key]
            for window in sorted((one for one in windows if one.end <= watermark), key=lambda one: one.start):
                found.append(Result(key, window, windows.pop(window), self._id(key, window)))
            if not windows:
                del self._state.windows[key]
        return sorted(found, key=lambda one: (one.window.end, one.window.start))

    def _id(self, key: Any, window: Window) -> str:
        text = f"{self.name} {type(key).__name__} {key!r} {window.start!r} {window.end!r}"
        return f"stream-{hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def _publish(self, client: Client, results: list[Result]) -> None:
        if callable(self._output):
            for one in results:
                self._output(one)
        elif self._output is not None:
            for at in range(0, len(results), PUBLISH_MAX):
                client.call(
                    "EventBus/Publish",
                    within=None,
                    topic=self._output,
                    events=[_event(one) for one in results[at : at + PUBLISH_MAX]],
                )

    # --- checkpoints ---

    def _load(self, client: Client) -> None:
        try:
            client.objects.create_store(STORE)
        except errors.AlreadyExists:
            pass
        try:
            described = client.objects.describe(self.name, store=STORE)
        except errors.NotFound:
            self._state, self._etag = _State(), None
            return
        content = client.objects.get(self.name, store=STORE, version=described.version)
        self._state, self._etag = _decoded(content, self.name), described.etag

    def _save(self, client: Client) -> None:
        """Raises Conflict when another process has kept one meanwhile."""
        try:
            stored = client.objects.put(self.name, _encoded(self._state), store=STORE, if_match=self._etag)
        except errors.Conflict as error:
            raise errors.Conflict(
                f"processor {self.name} is run by another process as well: its checkpoint is not the one of this one",
                reason="PROCESSOR_TAKEN_OVER",
            ) from error
        self._etag = stored.etag


def published_at(event: Event) -> float:
    """The time of an event unless the processor says otherwise: when it was published."""
    return event.time.timestamp() if event.time is not None else 0.0


def _event(result: Result) -> dict[str, Any]:
    """A result as an event."""
    payload = {"key": result.key, "start": result.window.start, "end": result.window.end, "value": result.value}
    return {"id": result.id, "key": str(result.key)[:255], "type": "window", "json": payload}


def _encoded(state: _State) -> bytes:
    """docs/formats/streams.md."""
    content = serialization.dumps(vars(state), "the state of the processor")
    return b"uccp-stream" + bytes([FORMAT]) + zlib.crc32(content).to_bytes(4, "big") + content


def _decoded(content: bytes, name: str) -> _State:
    """Raises Corruption, FailedPrecondition."""
    if content[:11] != b"uccp-stream" or len(content) < 16:
        raise errors.Corruption(f"the checkpoint of processor {name} is none", reason="CHECKPOINT_INVALID")
    if content[11] > FORMAT:
        raise errors.FailedPrecondition(
            f"the checkpoint of processor {name} has format {content[11]}, this version reads up to {FORMAT}",
            reason="FORMAT_UNKNOWN",
        )
    if zlib.crc32(content[16:]).to_bytes(4, "big") != content[12:16]:
        raise errors.Corruption(f"the checkpoint of processor {name} is damaged", reason="CHECKPOINT_INVALID")
    return _State(**pickle.loads(content[16:]))


def event(payload: Any, *, offset: int, partition: int = 0, key: str = "", topic: str = "events") -> Event:
    """An event for replay()."""

    def settle(*_: Any, **__: Any) -> None:
        raise errors.FailedPrecondition("an event that was made here is not acknowledged", reason="ACK_AUTOMATIC")

    return Event(
        id=f"{partition}-{offset}",
        topic=topic,
        payload=payload,
        type="",
        key=key,
        headers={},
        partition=partition,
        offset=offset,
        time=None,
        cursor="",
        delivery_attempt=1,
        subscription=None,
        ack_id="",
        _settle=settle,
    )


def replay(processor: Processor, events: Iterable[Event]) -> list[Result]:
    """Results of events that are given, without a cluster: for tests of processors."""
    return [result for event in events for result in processor.take(event)]


__all__ = [
    "Processor",
    "Result",
    "Window",
    "Windowing",
    "event",
    "published_at",
    "replay",
    "session",
    "sliding",
    "tumbling",
]
