"""Objects of the cluster's stores: values by key, with versions, labels and an end, for all clients and functions.

    stored = client.objects.put("features/may", table, ttl=3600)
    client.objects.get("features/may")
    uccp.get(train.remote(stored))       # arrives as its value; the content does not pass through the caller
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import uccp_worker
from uccp import _contract, errors, serialization
from uccp.connection import Connection

DEFAULT_STORE = "default"
INLINE_BYTES_MAX = 3 << 20  # in one request; more goes as a stream
PIECE_BYTES = 1 << 20
RAW = "application/octet-stream"


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """A version of an object, without its content. As an argument of a function it arrives as its value."""

    store: str
    key: str
    version: str
    size: int
    sha256: str
    content_type: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]
    etag: str
    expire_time: datetime.datetime | None
    update_time: datetime.datetime | None

    @property
    def reference(self) -> dict[str, str]:
        return {"store": self.store, "key": self.key, "version": self.version}


def stored_of(message: Any) -> StoredObject:
    return StoredObject(
        store=message.store,
        key=message.key,
        version=message.version,
        size=message.size,
        sha256=message.sha256,
        content_type=message.content_type,
        labels=dict(message.labels),
        metadata=dict(message.metadata),
        etag=message.etag,
        expire_time=_contract.time_of(message, "expire_time"),
        update_time=_contract.time_of(message, "update_time"),
    )


class Objects:
    """The object stores of a namespace. Bytes are stored as they are, other values pickled."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(
        self,
        key: str,
        value: Any,
        *,
        store: str = DEFAULT_STORE,
        content_type: str | None = None,
        ttl: float | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> StoredObject:
        """Stores a value, in the place of one that is there. With `if_match` only in that of the version with this
        etag, else raises Conflict."""
        raw = isinstance(value, (bytes, bytearray, memoryview))
        content = bytes(value) if raw else serialization.dumps(value, "the value")
        described = {
            "store": store,
            "key": key,
            "content_type": content_type or (RAW if raw else uccp_worker.VALUE),
            "serialization": "raw" if raw else "pickle",
            "ttl": ttl,
            "labels": labels,
            "metadata": metadata,
        }
        if len(content) <= INLINE_BYTES_MAX:
            return stored_of(
                self._connection.call(
                    "ComputeExecution/PutObject", within=None, object=described, data=content, if_match=if_match
                )
            )
        header = {"object": described, "if_match": if_match}
        pieces = range(0, len(content), PIECE_BYTES)

        def messages() -> Iterator[dict[str, Any]]:
            yield {"header": header}
            for at in pieces:
                yield {"data": content[at : at + PIECE_BYTES]}

        return stored_of(self._connection.upload("ComputeExecution/UploadObject", messages))

    def get(self, key: str, *, store: str = DEFAULT_STORE, version: str | None = None) -> Any:
        """The value: bytes, or what was pickled. Raises NotFound."""
        parts: list[bytes] = []
        content_type = RAW
        with self._connection.stream(
            "ComputeExecution/DownloadObject", store=store, key=key, version=version
        ) as chunks:
            for chunk in chunks:
                if chunk.HasField("object"):
                    content_type = chunk.object.content_type
                parts.append(chunk.data)
        return serialization.loads(b"".join(parts), content_type)

    def describe(self, key: str, *, store: str = DEFAULT_STORE, version: str | None = None) -> StoredObject:
        """Raises NotFound."""
        answer = self._connection.call(
            "ComputeExecution/GetObject", store=store, key=key, version=version, metadata_only=True
        )
        return stored_of(answer.object)

    def list(
        self, prefix: str | None = None, *, store: str = DEFAULT_STORE, filter: str | None = None
    ) -> Iterator[StoredObject]:
        """Objects in the order of their keys."""
        token = ""
        while True:
            page = self._connection.call(
                "ComputeExecution/ListObjects",
                store=store,
                prefix=prefix,
                filter=filter,
                page_token=token,
                page_size=500,
            )
            yield from map(stored_of, page.objects)
            token = page.next_page_token
            if not token:
                return

    def delete(
        self, key: str, *, store: str = DEFAULT_STORE, version: str | None = None, missing_ok: bool = False
    ) -> None:
        """Removes all versions, or one. Raises NotFound."""
        try:
            self._connection.call("ComputeExecution/DeleteObject", store=store, key=key, version=version)
        except errors.NotFound:
            if not missing_ok:
                raise

    def create_store(
        self, name: str, *, versioning: bool = False, bytes_max: int | None = None, object_ttl: float | None = None
    ) -> None:
        """Raises AlreadyExists."""
        self._connection.call(
            "ComputeExecution/CreateObjectStore",
            store={"name": name, "versioning": versioning, "bytes_max": bytes_max, "object_ttl": object_ttl},
        )

    def delete_store(self, name: str, *, force: bool = False) -> None:
        """With `force` also when it holds objects. Raises NotFound."""
        self._connection.call("ComputeExecution/DeleteObjectStore", name=name, force=force)
