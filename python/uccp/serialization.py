"""How functions, arguments and values become bytes and come back.

A function travels as the source of a small module that unpickles it; a call as a pickled (args, kwargs) in which
references
to values of other tasks are left out and follow by themselves, so that large values never pass through the caller.
"""

from __future__ import annotations

import base64
import os
import pickle
import re
import sys
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
from google.protobuf import json_format

import uccp_worker
from uccp import errors

PART = uccp_worker.PART
PART_BYTES = 1 << 20
# A call travels in one request.
CALL_BYTES_MAX = 3_500_000
SOURCE_BYTES_MAX = 1 << 20
NAME_BYTES_MAX = 128
LINE_BYTES = 100

_MODULE = """# Made by the Python package of UCCP from {name}.
import base64
import cloudpickle

function = cloudpickle.loads(base64.b64decode(
    {lines}
))
"""
ENTRY_POINT = "uccp_function:function"


_INSTALLED = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_by_value: set[str] = set()
_by_value_lock = threading.Lock()


def take_along(module_name: str | None) -> None:
    """What this module defines travels by value if workers cannot be expected to have it: it is no installed one."""
    module = sys.modules.get(module_name or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or module_name == "__main__":
        return
    with _by_value_lock:
        if module.__name__ not in _by_value and not os.path.realpath(file).startswith(_INSTALLED):
            cloudpickle.register_pickle_by_value(module)
            _by_value.add(module.__name__)


def dumps(value: Any, what: str, buffer_callback: Any = None) -> bytes:
    """Pickled. Raises SerializationError, which says what could not be."""
    try:
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffer_callback))
    except MemoryError:
        raise
    except Exception as error:
        raise errors.SerializationError(
            f"{what} cannot be pickled: {type(error).__name__}: {error}; what holds connections, locks or files does "
            "not travel: make it inside the function",
            reason="UNPICKLABLE",
        ) from error


def function_name(function: Callable[..., Any]) -> str:
    """The name under which a function is registered."""
    module = getattr(function, "__module__", "") or ""
    qualified = getattr(function, "__qualname__", type(function).__name__)
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{module}.{qualified}".replace("<locals>", "in")).lstrip("._-")
    return text[:NAME_BYTES_MAX].rstrip(".-") or "function"


def source_of(function: Callable[..., Any], name: str) -> str:
    """The module that a worker loads for a function."""
    take_along(getattr(function, "__module__", None))
    text = base64.b64encode(dumps(function, f"the function {name}")).decode()
    if len(text) > SOURCE_BYTES_MAX - 4096:
        raise errors.SerializationError(
            f"the function {name} has {len(text) * 3 // 4} bytes with what it refers to, at most "
            f"{SOURCE_BYTES_MAX * 3 // 4} travel; give large values as arguments",
            reason="FUNCTION_TOO_LARGE",
        )
    pieces = [f'"{text[at : at + LINE_BYTES]}"' for at in range(0, len(text), LINE_BYTES)]
    return _MODULE.format(name=name, lines="\n    ".join(pieces))


def payloads(content: bytes, content_type: str, what: str) -> list[dict[str, Any]]:
    """Content as payloads of the contract, in parts when it is large."""
    if len(content) > CALL_BYTES_MAX:
        raise errors.SerializationError(
            f"{what} has {len(content)} bytes, at most {CALL_BYTES_MAX} travel with a call; return large values from "
            "functions and pass their references, or name files that workers can read",
            reason="ARGUMENTS_TOO_LARGE",
        )
    parts = [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)] or [b""]
    return [{"data": part, "content_type": PART} for part in parts[:-1]] + [
        {"data": parts[-1], "content_type": content_type}
    ]


def payload_value(payload: Any) -> Any:
    """The Python value of a payload that is not a blob."""
    which = payload.WhichOneof("body")
    if which is None:
        return None
    if which == "json":
        return json_format.MessageToDict(payload.json)
    if which == "text":
        return payload.text
    return loads(payload.data, payload.content_type)


def loads(content: bytes, content_type: str) -> Any:
    """Content by its media type."""
    if content_type in (uccp_worker.VALUE, uccp_worker.OUTCOMES, uccp_worker.ERROR):
        return pickle.loads(content)
    return content


def remote_error(failure: dict[str, Any], task_id: str, status: str) -> errors.RemoteError:
    """What a function raised, as an exception that is also of the class of the original, where that can be."""
    cause: BaseException | None = None
    if failure.get("exception"):
        try:
            cause = pickle.loads(failure["exception"])
        except Exception:
            cause = None
    message = f"{failure['type']}: {failure['message']}" if failure["message"] else str(failure["type"])
    details: dict[str, Any] = {
        "remote_type": failure["type"],
        "remote_traceback": failure["traceback"],
        "cause": cause,
        "task_id": task_id,
        "status": status,
        "reason": "FUNCTION_RAISED",
    }
    error: errors.RemoteError
    kind = type(cause) if cause is not None else Exception
    try:
        both = type(f"Remote{kind.__name__}", (errors.RemoteError, kind), {})
        error = both(message, **details)
    except TypeError:  # its class has a layout or a constructor that cannot be combined
        error = errors.RemoteError(message, **details)
    error.__cause__ = cause
    return error
