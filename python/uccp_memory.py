"""Objects in memory that the processes of a machine share, read without asking anybody (docs/design/objects.md).

A process shows its grant to the agent of its machine and gets three files: the index of what there is, the segment
that holds it, and a page on which it says what it reads. It needs nothing of the package `uccp`: processes that run
functions use it too.

How a value lies there is in uccp_packed.py.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import mmap
import os
import platform
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from uccp_packed import PICKLED, RAW, Packed, identity_of, unpacked

__all__ = ["PICKLED", "RAW", "Memory", "MemoryGone", "MemoryRefused", "Packed", "identity_of", "of_file", "of_process"]

SOCKET = "UCCP_OBJECTS_SOCKET"
GRANT = "UCCP_OBJECTS_GRANT"
FILE = "UCCP_OBJECTS_FILE"  # objects.json of an agent, for processes that no agent started

PACKET_BYTES = 64 << 10
INLINE_BYTES = 40 << 10  # what the agent writes itself
COPIED_BYTES = 32 << 10  # what is read by copying, without a pin
BLOCK_BYTES = 1 << 20
NEW_BYTES = 4 << 20  # parts of a value from which on it matters how new memory is written
RELEASED_MAX = 1000  # references that are given back in one message
TOGETHER_MAX = 500  # objects that are put by one message
PUT_WAIT_S = 60.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.001, 0.1
# What a reader waits for: that an object comes from elsewhere, whose failure is another reason; that there is room.
GET_WAITS_S = {"OBJECT_COMING": float("inf"), "MEMORY_FULL": PUT_WAIT_S}

# The layout of src/shm/layout.h.
HEADER = struct.Struct("<QIIQ")
MAGIC = 0x314D485350434355
LAYOUT = 1
HEADER_BYTES = 4096
SLOT = struct.Struct("<Q16sQQ")
SLOT_BYTES = 64
WORD = struct.Struct("<Q")
WINDOW = 8
PIN = struct.Struct("<II")
PINS_MAX = 4096
TRIES = 100

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_REGISTER_GLOBAL_EXPEDITED = 4
_MADV_POPULATE_WRITE = 23

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_FAILED = ctypes.c_void_p(-1).value


class MemoryRefused(Exception):
    """What the agent said instead; `reason` is a name that does not change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MemoryGone(Exception):
    """The agent has ended, and with it what it kept."""


def _field(tag: str, content: bytes) -> bytes:
    return struct.pack(">BI", ord(tag), len(content)) + content


def _fields(body: memoryview) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(body):
        tag, size = struct.unpack_from(">BI", body, at)
        at += 5
        yield chr(tag), bytes(body[at : at + size])
        at += size


def _map(file: int, size: int, writable: bool) -> int:
    """Address of a mapping. Not mmap.mmap: views into it have to outlive this module's objects."""
    at = _libc.mmap(None, size, mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0), mmap.MAP_SHARED, file, 0)
    if at == _FAILED:
        raise MemoryRefused("MEMORY_MAP_FAILED", f"cannot map {size} bytes: {os.strerror(ctypes.get_errno())}")
    return int(at)


def _again(ask: Callable[[], Any], waits: dict[str, float]) -> None:
    """Asks until it is not refused for one of these reasons, or for longer than that takes."""
    begin, pause = time.monotonic(), PAUSE_FIRST_S
    while True:
        try:
            ask()
            return
        except MemoryRefused as error:
            if time.monotonic() + pause > begin + waits.get(error.reason, 0):
                raise
        time.sleep(pause)
        pause = min(PAUSE_MAX_S, 2 * pause)


class Pins:
    """What this process reads, on its page. Given back by the garbage collector, which may come at any moment, also
    while this thread is in here: then whoever is in here does it on leaving."""

    def __init__(self, page: mmap.mmap) -> None:
        self._pid = os.getpid()
        self._page = page
        self._lock = threading.Lock()
        self._held: dict[int, list[int]] = {}  # slot: place on the page, count
        self._free = list(range(PINS_MAX - 1, -1, -1))
        self._left: collections.deque[int] = collections.deque()

    def take(self, slot: int, still: Callable[[], bool]) -> bool:
        """Pins a slot, if it `still` is what it was once the pin is written."""
        with self._lock:
            taken = self._take(slot, still)
        self._drain()
        return taken

    def _take(self, slot: int, still: Callable[[], bool]) -> bool:
        held = self._held.get(slot)
        if held is not None:
            held[1] += 1
            if still():
                return True
            held[1] -= 1
            return False
        if not self._free:
            return False
        place = self._free[-1]
        PIN.pack_into(self._page, place * PIN.size, slot + 1, 1)
        if not still():
            PIN.pack_into(self._page, place * PIN.size, 0, 0)
            return False
        self._free.pop()
        self._held[slot] = [place, 1]
        return True

    def leave(self, slot: int) -> None:
        if os.getpid() != self._pid:  # a child's copy of a view; the page is the parent's
            return
        self._left.append(slot)
        self._drain()

    def _drain(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    self._give_back(self._left.popleft())
            finally:
                self._lock.release()

    def _give_back(self, slot: int) -> None:
        held = self._held[slot]
        held[1] -= 1
        if held[1] == 0:
            PIN.pack_into(self._page, held[0] * PIN.size, 0, 0)
            self._free.append(held[0])
            del self._held[slot]

    @property
    def count(self) -> int:
        return len(self._held)


class Memory:
    """The objects of one namespace on this machine. Any number of threads may use one."""

    def __init__(self, socket_name: str, grant: str, tenant: str = "", namespace: str = "") -> None:
        """Raises OSError when there is no agent, MemoryRefused when it does not let this process in."""
        self._door = (socket_name, grant, tenant, namespace)
        self._connect()

    def _connect(self) -> None:
        socket_name, grant, tenant, namespace = self._door
        self.pid = os.getpid()
        self.gone = False  # the agent has ended
        self._location = b""
        self._lock = threading.Lock()  # of requests: one at a time, answered in order
        self._released: collections.deque[bytes] = collections.deque()
        self._releasing = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect("\0" + socket_name)
            body = _field("x", grant.encode())
            if tenant:
                body += _field("t", tenant.encode()) + _field("n", namespace.encode())
            self._socket.send(b"T\0" + body)
            packet, files, _, _ = socket.recv_fds(self._socket, PACKET_BYTES, 3)
            self._answer(packet, "T")
            try:
                self._open(*files)
            finally:
                for file in files:
                    os.close(file)
        except BaseException:
            self._socket.close()
            raise

    def _own(self) -> None:
        """A child of the process that made this needs a page and a connection of its own; it has no references."""
        if os.getpid() != self.pid:
            self._connect()

    def _open(self, index: int, segment: int, page: int) -> None:
        number = _MEMBARRIER.get(platform.machine())
        if number is None or _libc.syscall(number, _REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0:
            raise MemoryRefused("BARRIER_MISSING", "the kernel does not let this process share objects: membarrier")
        self._index = mmap.mmap(index, 0, prot=mmap.PROT_READ)
        magic, version, self._slots, self._segment_bytes = HEADER.unpack_from(self._index, 0)
        if magic != MAGIC or version != LAYOUT:
            raise MemoryRefused("INDEX_INVALID", f"the agent shares objects by layout {version}, not {LAYOUT}")
        self._mask = self._slots - 1
        self._page = mmap.mmap(page, 0)
        self._uses = PINS_MAX * PIN.size
        self._pins = Pins(self._page)
        self._segment = os.dup(segment)
        self._read_at = _map(segment, self._segment_bytes, writable=False)
        self._write_at = 0
        self._mapped = bytearray(self._segment_bytes // BLOCK_BYTES + 1)  # blocks that this process has for writing
        self._to_map: collections.deque[range] = collections.deque()
        self._mapping = threading.Lock()

    @property
    def door(self) -> str:
        """The name of the agent's socket, which says whose memory it is."""
        return self._door[0]

    def location(self) -> bytes:
        """What agents of other machines need to read objects of this one's. Raises MemoryRefused, MemoryGone."""
        self._own()
        if not self._location:
            self._location = self._ask("L", b"")["l"]
        return self._location

    def refer(self, identity: bytes, location: bytes) -> None:
        """A reference to an object that is there; it comes here when it is read."""
        with contextlib.suppress(OSError):  # an agent that has ended keeps nothing
            self._socket.send(b"B\0" + _field("i", identity) + _field("l", location))

    def take(self, identity: bytes, location: bytes | None = None) -> Any:
        """The value that was handed over to this process, or is elsewhere; no reference stays: it lives as long as it
        is looked at. Raises MemoryRefused, MemoryGone."""
        self._own()
        if location is None:
            self.retain(identity)
        else:
            self.refer(identity, location)
        try:
            return self.get(identity)
        finally:
            self.release(identity)

    def close(self) -> None:
        """References end. Values that were read stay, as views of what was there."""
        self._socket.close()
        with contextlib.suppress(OSError):
            os.close(self._segment)

    # Asking the agent ----------------------------------------------------------------------------------------------

    @staticmethod
    def _answer(packet: bytes, expected: str) -> dict[str, bytes]:
        if not packet:
            raise MemoryGone("the agent of this machine has ended")
        found = dict(_fields(memoryview(packet)[2:]))
        if chr(packet[0]) == "E":
            raise MemoryRefused(found["r"].decode(), found["m"].decode())
        if chr(packet[0]) != expected:
            raise MemoryRefused("ANSWER_INVALID", "the agent answered something else than it was asked")
        return found

    def _ask(self, kind: str, body: bytes) -> dict[str, bytes]:
        self._own()
        self._give_back()
        try:
            with self._lock:
                self._socket.send(kind.encode() + b"\0" + body)
                packet = self._socket.recv(PACKET_BYTES)
        except OSError as error:
            self.gone = True
            raise MemoryGone(f"the agent of this machine has ended: {error}") from error
        self.gone = not packet
        return self._answer(packet, kind)

    def _tell(self, kind: str, ids: bytes) -> None:
        with contextlib.suppress(OSError):  # an agent that has ended keeps nothing
            self._socket.send(kind.encode() + b"\0" + _field("i", ids))

    def stats(self) -> dict[str, int]:
        """What the agent keeps for this namespace."""
        self._own()
        self._give_back()
        with self._lock:
            self._socket.send(b"Q\0")
            packet = self._socket.recv(PACKET_BYTES)
        self._answer(packet, "Q")
        values = [content for _, content in _fields(memoryview(packet)[2:])]
        return {
            name.decode(): int.from_bytes(value, "big") for name, value in zip(values[::2], values[1::2], strict=True)
        }

    def runs(self, actor: str) -> bool:
        """True if this object of an actor (`task/attempt`) is on this machine."""
        return self._ask("W", _field("n", actor.encode())).get("y") == b"1"

    # Writing -------------------------------------------------------------------------------------------------------

    def put(
        self, packed: Packed, identity: bytes | None = None, *, hand_over: bool = False, wait: float = PUT_WAIT_S
    ) -> bytes:
        """Stores a value and answers its id, a random one if it is not given; this process has a reference, or with
        `hand_over` whoever retains it first. While memory is full of what cannot leave it, waits for that so many
        seconds. Raises MemoryRefused."""
        identity = identity or os.urandom(16)
        _again(lambda: self._put_once(identity, packed, hand_over), {"MEMORY_FULL": wait})
        return identity

    def put_many(self, values: list[Packed], *, wait: float = PUT_WAIT_S) -> list[bytes]:
        """As put(), of many; small ones travel to the agent together."""
        found: list[bytes] = []
        small: list[tuple[bytes, Packed]] = []
        size = 0
        for packed in values:
            identity = os.urandom(16)
            found.append(identity)
            if packed.size > INLINE_BYTES:
                self.put(packed, identity, wait=wait)
                continue
            if size + packed.size > INLINE_BYTES or len(small) >= TOGETHER_MAX:
                self._put_together(small, wait)
                size = 0
            small.append((identity, packed))
            size += packed.size
        self._put_together(small, wait)
        return found

    def _put_together(self, values: list[tuple[bytes, Packed]], wait: float) -> None:
        """Puts them, and empties the list."""

        def ask() -> None:
            body = b"".join(_field("i", identity) + _field("d", packed.whole()) for identity, packed in values)
            count = int.from_bytes(self._ask("N", body)["n"], "big")
            del values[:count]

        while values:
            _again(ask, {"MEMORY_FULL": wait})

    def prefetch(self, identities: list[bytes]) -> None:
        """Asks for what is on other machines or behind the disk to be brought here, and does not wait for it."""
        self._own()
        away = [one for one in identities if self._find(one) is None]
        for at in range(0, len(away), RELEASED_MAX):
            self._tell("F", b"".join(away[at : at + RELEASED_MAX]))

    def _put_once(self, identity: bytes, packed: Packed, hand_over: bool) -> None:
        flag = _field("h", b"1") if hand_over else b""
        head = _field("i", identity)
        if packed.size <= INLINE_BYTES:
            self._ask("P", head + _field("d", packed.whole()) + flag)
            return
        offset = int.from_bytes(self._ask("C", head + _field("s", struct.pack(">Q", packed.size)))["o"], "big")
        try:
            for place, part in packed.parts():
                self._write(offset + place, part)
        except BaseException:
            self._tell("R", identity)
            raise
        self._ask("S", head + flag)

    def _write(self, offset: int, part: Any) -> None:
        if not self._write_at:
            self._write_at = _map(self._segment, self._segment_bytes, writable=True)
        view = memoryview(part).cast("B")
        if view.nbytes == 0:
            return
        blocks = range(offset // BLOCK_BYTES, (offset + view.nbytes - 1) // BLOCK_BYTES + 1)
        if view.nbytes >= NEW_BYTES and not all(self._mapped[one] for one in blocks):
            return self._write_new(offset, view, blocks)
        # ctypes lets other threads run while it copies.
        source = (ctypes.c_char * view.nbytes).from_buffer(view) if not view.readonly else _address_of(view)
        ctypes.memmove(self._write_at + offset, source, view.nbytes)

    def _write_new(self, offset: int, view: memoryview, blocks: range) -> None:
        """Into memory that is new to this process: by the kernel, since giving each page to the process takes several
        times as long as copying. That is done afterwards, beside the process, for what is put there next."""
        at = 0
        while at < view.nbytes:
            at += os.pwrite(self._segment, view[at:], offset + at)
        self._to_map.append(blocks)
        if self._mapping.acquire(blocking=False):
            threading.Thread(target=self._map_new, name="uccp-memory", daemon=True).start()

    def _map_new(self) -> None:
        try:
            while self._to_map:
                blocks = self._to_map.popleft()
                begin = blocks.start * BLOCK_BYTES
                size = min(blocks.stop * BLOCK_BYTES, self._segment_bytes) - begin
                _libc.madvise(self._write_at + begin, size, _MADV_POPULATE_WRITE)  # an older kernel does it later
                self._mapped[blocks.start : blocks.stop] = b"\1" * len(blocks)
        finally:
            self._mapping.release()

    def retain(self, identity: bytes) -> None:
        """One reference more."""
        self._tell("K", identity)

    def release(self, identity: bytes) -> None:
        """One reference less. May be called by the garbage collector: it neither waits nor fails."""
        if os.getpid() != self.pid:  # the reference is the parent's
            return
        self._released.append(identity)
        self._give_back()

    def _give_back(self) -> None:
        """What the agent was too busy to be told is told with the next reference, or request."""
        while self._released and self._releasing.acquire(blocking=False):
            try:
                ids = [self._released.popleft() for _ in range(min(len(self._released), RELEASED_MAX))]
                try:
                    self._socket.send(b"R\0" + _field("i", b"".join(ids)), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    self._released.extendleft(reversed(ids))
                    return
                except OSError:
                    self._released.clear()  # it has ended, and keeps nothing
            finally:
                self._releasing.release()

    # Reading -------------------------------------------------------------------------------------------------------

    def _find(self, identity: bytes) -> tuple[int, int, int, int] | None:
        """(slot, word, offset, size) of what the index shows."""
        index, mask = self._index, self._mask
        first = int.from_bytes(identity[:4], "little")
        for number in range(WINDOW):
            slot = (first + number) & mask
            word, found, offset, size = SLOT.unpack_from(index, HEADER_BYTES + slot * SLOT_BYTES)
            if found == identity and word and not word & 1:
                return slot, word, offset, size
        return None

    def size_of(self, identity: bytes) -> int | None:
        """Bytes of an object that is in memory."""
        found = self._find(identity)
        return None if found is None else found[3]

    def get(self, identity: bytes) -> Any:
        """The value. Raises MemoryRefused: OBJECT_UNKNOWN, OBJECT_LOST; MemoryGone."""
        self._own()
        for _ in range(TRIES):
            found = self._find(identity)
            if found is None:
                _again(lambda: self._ask("G", _field("i", identity)), GET_WAITS_S)
                continue
            slot, word, offset, size = found
            at = HEADER_BYTES + slot * SLOT_BYTES
            if size <= COPIED_BYTES:
                content = ctypes.string_at(self._read_at + offset, size)
                if WORD.unpack_from(self._index, at)[0] != word:
                    continue
                value = unpacked(memoryview(content))
            elif self._pins.take(slot, lambda at=at, word=word: WORD.unpack_from(self._index, at)[0] == word):
                value = unpacked(self._view(slot, offset, size))
            else:
                if self._pins.count < PINS_MAX:
                    continue
                content = ctypes.string_at(self._read_at + offset, size)  # too much is pinned: a copy
                if WORD.unpack_from(self._index, at)[0] != word:
                    continue
                value = unpacked(memoryview(content))
            uses = self._uses + slot
            if self._page[uses] < 255:
                self._page[uses] += 1
            return value
        raise MemoryRefused("MEMORY_FULL", "the object leaves memory again before it can be read: too much is in use")

    def _view(self, slot: int, offset: int, size: int) -> memoryview:
        """What is pinned, until nothing refers to the view or to parts of it."""
        # A type of its own for each size stays in ctypes' cache; whole pages make few of them.
        whole = (ctypes.c_char * size).from_address(self._read_at + offset)
        weakref.finalize(whole, self._pins.leave, slot).atexit = False
        return memoryview(whole).cast("B").toreadonly()


def _address_of(view: memoryview) -> int:
    """Address of a buffer that cannot be written, which ctypes does not tell by itself."""
    exported = _PyBuffer()
    if ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(exported), 0) != 0:
        raise BufferError("a buffer of the value cannot be read")
    try:
        return int(exported.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(exported))


class _PyBuffer(ctypes.Structure):
    """Python's Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_own: Memory | None = None
_own_lock = threading.Lock()


def of_process() -> Memory | None:
    """The memory that the agent gave to the process that it started; None outside of such."""
    global _own
    if SOCKET not in os.environ:
        return None
    with _own_lock:
        if _own is None or _own.pid != os.getpid():
            _own = Memory(os.environ[SOCKET], os.environ[GRANT])
        return _own


def of_file(path: str, tenant: str, namespace: str) -> Memory | None:
    """The memory of an agent whose objects.json this process may read; None if there is none."""
    try:
        with open(path) as file:
            described = json.load(file)
        return Memory(described["socket"], described["grant"], tenant, namespace)
    except (OSError, ValueError, KeyError):
        return None

