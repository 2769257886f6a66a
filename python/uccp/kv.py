"""Keys and values with revisions: `client.kv.put("app/config", b"1")`, transactions of one key by revision,
watches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from uccp import _contract, errors
from uccp.connection import Connection

PAGE = 1000


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key as it is stored."""

    key: str
    value: bytes
    revision: int  # of its last change
    create_revision: int
    version: int  # changes since it was created, from 1
    lease: int  # 0: none

    @property
    def text(self) -> str:
        return self.value.decode()


@dataclasses.dataclass(frozen=True)
class Change:
    """What happened to a key. `cursor` goes on behind it in a later watch."""

    kind: str  # PUT or DELETE
    entry: Entry
    revision: int
    cursor: str


def _entry(pair: Any) -> Entry:
    return Entry(
        key=pair.key.decode(errors="surrogateescape"),
        value=pair.value,
        revision=pair.mod_revision,
        create_revision=pair.create_revision,
        version=pair.version,
        lease=pair.lease,
    )


class KeyValue:
    """The keys of the client's namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, key: str, value: bytes | str, *, lease: int | None = None, if_revision: int | None = None) -> int:
        """Writes a key and answers the revision. With `if_revision` only if the key is at that one (0: does not
        exist).

        Raises Conflict when it is not."""
        answer = self._connection.call(
            "KeyValue/Put",
            key=key,
            value=value,
            lease=lease,
            if_match=None if if_revision is None else str(if_revision),
        )
        return int(answer.revision)

    def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        """The key as it is, or was at a revision; None if there is none."""
        try:
            return _entry(self._connection.call("KeyValue/Get", key=key, revision=revision))
        except errors.NotFound:
            return None

    def delete(self, key: str, *, if_revision: int | None = None) -> bool:
        """Removes a key; False if there was none."""
        answer = self._connection.call(
            "KeyValue/Delete", key=key, if_match=None if if_revision is None else str(if_revision)
        )
        return bool(answer.deleted)

    def delete_prefix(self, prefix: str) -> int:
        """Removes all keys that begin so, and answers how many."""
        return int(self._connection.call("KeyValue/Delete", prefix=prefix).deleted)

    def range(self, prefix: str) -> Iterator[Entry]:
        """All keys that begin so, in order, as of one revision."""
        fields: dict[str, Any] = {"prefix": prefix}
        revision = None
        while True:
            page = self._connection.call("KeyValue/Range", limit=PAGE, revision=revision, **fields)
            yield from map(_entry, page.pairs)
            if not page.more:
                return
            revision = page.revision
            end = prefix.encode()[:-1] + bytes([prefix.encode()[-1] + 1])
            fields = {"key": page.next_key, "range_end": end}

    def watch(self, prefix: str, *, since: str = "", start_revision: int | None = None) -> Iterator[Change]:
        """Yields changes of keys that begin so, from now on, from a revision, or behind a cursor, without gaps.

        Raises CursorCompacted when what it would go on with is compacted."""
        stream = self._connection.stream(
            "KeyValue/Watch", prefix=prefix, since=since or None, start_revision=start_revision
        )
        with stream:
            for item in stream:
                for event in item.events:
                    yield Change(
                        kind=_contract.enum_name(event, "kind"),
                        entry=_entry(event.pair),
                        revision=event.pair.mod_revision,
                        cursor=item.cursor,
                    )

    def grant_lease(self, ttl: float) -> int:
        """A lease for keys that shall go when it is not kept alive for `ttl` seconds."""
        return int(self._connection.call("KeyValue/GrantLease", ttl=ttl).id)

    def keep_alive(self, lease: int) -> float:
        """Renews a lease and answers the seconds that it now has."""
        return _contract.seconds(self._connection.call("KeyValue/KeepLeaseAlive", id=lease).remaining)

    def revoke(self, lease: int) -> None:
        """Ends a lease and removes its keys."""
        self._connection.call("KeyValue/RevokeLease", id=lease)
