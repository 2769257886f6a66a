"""What a step depends on, as a digest: its code and what that refers to, its arguments, its environment.

The digest of a function does not change with the process, the file or the line in which it is, but with its code, its
default values, what it encloses, and the functions, classes and constants of modules that travel with it (those that
are not installed). It does change with the version of Python. Of other objects the pickled bytes count.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from uccp import serialization

_SIMPLE = (type(None), bool, int, float, complex, str, bytes)


def of_code(function: Callable[..., Any]) -> str:
    """Of a function with all that it refers to."""
    digest = _Digest()
    digest.text("python", f"{sys.version_info[0]}.{sys.version_info[1]}")
    digest.anything(function)
    return digest.hexdigest()


def of_value(value: Any, stands_for: Callable[[Any], str | None] = lambda _: None) -> str:
    """Of a value; `stands_for` answers the digest of what stands for something else."""
    digest = _Digest(stands_for)
    digest.anything(value)
    return digest.hexdigest()


def of_texts(*texts: str) -> str:
    digest = _Digest()
    for one in texts:
        digest.text("t", one)
    return digest.hexdigest()


def _installed(function: Any) -> bool:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or module.__name__ == "__main__":
        return False
    return file is None or os.path.realpath(file).startswith(serialization._INSTALLED)


class _Digest:
    def __init__(self, stands_for: Callable[[Any], str | None] = lambda _: None) -> None:
        self._hash = hashlib.sha256()
        self._stands_for = stands_for
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that ids stay those of what was seen

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def raw(self, kind: str, content: bytes) -> None:
        self._hash.update(struct.pack(">8sQ", kind.encode()[:8], len(content)))
        self._hash.update(content)

    def text(self, kind: str, content: str) -> None:
        self.raw(kind, content.encode(errors="surrogatepass"))

    def anything(self, value: Any) -> None:
        other = self._stands_for(value)
        if other is not None:
            self.text("other", other)
        elif isinstance(value, _SIMPLE):
            self.raw(type(value).__name__, value if isinstance(value, bytes) else repr(value).encode())
        elif id(value) in self._seen:
            self.text("seen", str(self._seen[id(value)]))
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            self._compound(value)

    def _compound(self, value: Any) -> None:
        if type(value) in (list, tuple):
            self.text("list", f"{type(value).__name__} {len(value)}")
            for one in value:
                self.anything(one)
        elif isinstance(value, Mapping) and type(value) in (dict, types.MappingProxyType):
            self.text("dict", str(len(value)))
            for key, one in value.items():
                self.anything(key)
                self.anything(one)
        elif type(value) in (set, frozenset):  # whose order differs from process to process
            self.text("set", " ".join(sorted(of_value(one, self._stands_for) for one in value)))
        elif isinstance(value, types.ModuleType):
            self.text("module", value.__name__)
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif hasattr(value, "definition_digest"):  # steps and workflows
            self.text("step", value.definition_digest())
        elif isinstance(value, (types.MethodType, staticmethod, classmethod)):
            self.anything(value.__func__)
        elif isinstance(value, property):
            self.anything([value.fget, value.fset, value.fdel])
        else:
            self.raw("pickle", serialization.dumps(value, f"a {type(value).__name__} that the digest is made of"))

    def _function(self, function: types.FunctionType) -> None:
        self.text("function", function.__qualname__)
        if _installed(function):
            self.text("module", function.__module__ or "")
            return
        self._code(function.__code__)
        self.anything(function.__defaults__)
        self.anything(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.anything(cell.cell_contents)
            except ValueError:  # empty: a name that is bound later
                self.text("cell", "")
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self.text("global", name)
                self.anything(function.__globals__[name])

    def _code(self, code: types.CodeType) -> None:
        self.raw("code", code.co_code)
        self.text("names", " ".join((*code.co_names, "|", *code.co_varnames, "|", *code.co_freevars)))
        for one in code.co_consts:
            self.anything(one)

    def _class(self, found: type) -> None:
        self.text("class", f"{found.__module__}.{found.__qualname__}")
        if _installed(found):
            return
        for base in found.__bases__:
            self.anything(base)
        for name, one in sorted(vars(found).items()):
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__") and not isinstance(
                one, (types.MemberDescriptorType, types.GetSetDescriptorType)
            ):
                self.text("member", name)
                self.anything(one)


def _names(code: types.CodeType) -> set[str]:
    """Global names that code, and the functions in it, may refer to."""
    found = set(code.co_names)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            found |= _names(one)
    return found
