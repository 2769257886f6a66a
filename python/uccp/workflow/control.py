"""Tells the driver of a run that somebody wants it to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from uccp import errors
from uccp.client import Client
from uccp.connection import Stream
from uccp.workflow.store import PREFIX, decoded


class Control:
    """Watches the control record of a run on a thread, and calls `asked` with the reason, once."""

    def __init__(self, client: Client, run_id: str, asked: Callable[[str], None]) -> None:
        self._client = client
        self._key = f"{PREFIX}control/{run_id}"
        self._asked = asked
        self._stream: Stream | None = None
        found = client.call("KeyValue/Range", key=self._key)
        if found.pairs:
            asked(str(decoded(found.pairs[0].value, self._key).get("cancel", "")))
            return
        self._stream = client.connection.stream(
            "KeyValue/Watch", key=self._key, start_revision=found.revision + 1  # so that nothing in between is missed
        )
        self._thread = threading.Thread(target=self._watch, name="uccp-workflow-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _watch(self) -> None:
        assert self._stream is not None
        try:
            for item in self._stream:
                for event in item.events:
                    if event.pair.value:
                        self._asked(str(decoded(event.pair.value, self._key).get("cancel", "")))
                        return
        except errors.UccpError:
            # The stream cannot go on, as when the history was compacted: whoever cancels stops the tasks as well, and
            # the record is read again when the run is driven the next time.
            return
