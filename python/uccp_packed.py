"""A value as it lies in memory that processes share (docs/design/objects.md).

Values are pickled; large buffers in them (of NumPy arrays, pandas and Arrow tables) lie beside the pickle, aligned, and
are not copied when the value is read: they are views that cannot be written, and keep their object where it is.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

ALIGNMENT = 64

# A value: what it is, the number of its buffers, the size of its pickle; then offset and size of each buffer.
VALUE_HEAD = struct.Struct("<IIQ")
BUFFER = struct.Struct("<QQ")
PICKLED, RAW = 1, 2


def _aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class Packed:
    """A value as it lies in memory: its pickle, or its bytes, and the buffers beside it."""

    __slots__ = ("buffers", "content", "head", "places", "size")

    def __init__(self, kind: int, content: bytes, buffers: list[memoryview]) -> None:
        self.content, self.buffers = content, buffers
        at = VALUE_HEAD.size + BUFFER.size * len(buffers)
        self.places = [at]  # of the content, then of the buffers
        at += len(content)
        for buffer in buffers:
            at = _aligned(at)
            self.places.append(at)
            at += buffer.nbytes
        self.size = at
        self.head = VALUE_HEAD.pack(kind, len(buffers), len(content)) + b"".join(
            BUFFER.pack(place, buffer.nbytes) for place, buffer in zip(self.places[1:], buffers, strict=True)
        )

    @classmethod
    def of(cls, value: Any, dumps: Callable[[Any, Any], bytes]) -> Packed:
        """`dumps` pickles a value and gives its buffers to a callback."""
        if type(value) is bytes:
            return cls(RAW, value, [])
        taken: list[pickle.PickleBuffer] = []
        content = dumps(value, taken.append)
        return cls(PICKLED, content, [one.raw() for one in taken])

    def whole(self) -> bytes:
        content = bytearray(self.size)
        for place, part in self.parts():
            content[place : place + len(part)] = part
        return bytes(content)

    def parts(self) -> Iterator[tuple[int, Any]]:
        yield 0, self.head
        yield self.places[0], self.content
        yield from zip(self.places[1:], self.buffers, strict=True)


def identity_of(task_id: str, attempt: str) -> bytes:
    """Of the object that is the value of an attempt."""
    return hashlib.blake2b(f"{task_id}/{attempt}".encode(), digest_size=16).digest()


def unpacked(content: memoryview) -> Any:
    """The value that lies in `content`."""
    kind, count, size = VALUE_HEAD.unpack_from(content, 0)
    at = VALUE_HEAD.size + BUFFER.size * count
    packed = content[at : at + size]
    if kind == RAW:
        return bytes(packed)
    if count == 0:
        return pickle.loads(packed)
    places = [BUFFER.unpack_from(content, VALUE_HEAD.size + BUFFER.size * number) for number in range(count)]
    return pickle.loads(packed, buffers=[content[begin : begin + length] for begin, length in places])
