"""Which cluster, and with which credentials: the same files and variables as the command line, in the same order."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from uccp.errors import ContextInvalid

DEV_CONTEXT = "data/dev.json"


@dataclasses.dataclass
class Context:
    """A cluster: addresses of its nodes, credentials, the namespace to work in."""

    targets: list[str]
    ca: bytes = b""
    cert: bytes = b""
    key: bytes = b""
    token: str = dataclasses.field(default="", repr=False)
    namespace: str = ""
    source: str = ""
    objects: str = ""  # objects.json of an agent on this machine, which is there if it shares objects


def config_folder() -> pathlib.Path | None:
    """Where the command line keeps its contexts."""
    for variable, below in (("UCCP_CONFIG_DIR", ""), ("XDG_CONFIG_HOME", "uccp"), ("HOME", ".config/uccp")):
        if os.environ.get(variable):
            return pathlib.Path(os.environ[variable], below)
    return None


def _named(name: str) -> pathlib.Path:
    folder = config_folder()
    path = folder / "contexts" / f"{name}.json" if folder else None
    if path is None or not path.is_file():
        known = sorted(one.stem for one in folder.glob("contexts/*.json")) if folder else []
        raise ContextInvalid(
            f"there is no context {name!r}; "
            + (f"there is: {', '.join(known)}" if known else "`uccp-cli context set NAME` makes one"),
            reason="CONTEXT_INVALID",
        )
    return path


def _selected(file: str | os.PathLike[str] | None, name: str | None) -> pathlib.Path | None:
    if file:
        return pathlib.Path(file)
    if name:
        return _named(name)
    if os.environ.get("UCCP_CONTEXT_FILE"):
        return pathlib.Path(os.environ["UCCP_CONTEXT_FILE"])
    if os.environ.get("UCCP_CONTEXT"):
        return _named(os.environ["UCCP_CONTEXT"])
    folder = config_folder()
    current = folder / "current" if folder else None
    if current and current.is_file():
        return _named(current.read_text().strip())
    return pathlib.Path(DEV_CONTEXT) if pathlib.Path(DEV_CONTEXT).is_file() else None


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ContextInvalid(
            f"context file {path} cannot be read: {error.strerror}", reason="CONTEXT_INVALID"
        ) from error
    except ValueError as error:
        raise ContextInvalid(f"context file {path} is not JSON: {error}", reason="CONTEXT_INVALID") from error
    if not isinstance(content, dict):
        raise ContextInvalid(f"context file {path} is not a JSON object", reason="CONTEXT_INVALID")
    return content


def _pem(folder: pathlib.Path, value: str) -> bytes:
    """A certificate or key: itself, or the file that holds it."""
    if not value or value.lstrip().startswith("-----BEGIN"):
        return value.encode()
    try:
        return (folder / value).read_bytes()
    except OSError as error:
        raise ContextInvalid(
            f"{folder / value}, named by the context, cannot be read: {error.strerror}", reason="CONTEXT_INVALID"
        ) from error


def _targets(content: dict[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for node in [content, *content.get("nodes", [])]:
        target = str(node.get("grpc", "") if isinstance(node, dict) else node)
        if target:
            found[target.partition("://")[2] or target] = None
    return list(found)


def load(
    file: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    token: str | None = None,
    namespace: str | None = None,
) -> Context:
    """The context of a file, of a name of the command line, or the one in use: $UCCP_CONTEXT_FILE, $UCCP_CONTEXT,
    that of
    `uccp-cli context use`, ./data/dev.json.

    Raises ContextInvalid when there is none, or it cannot be used."""
    path = _selected(file, name)
    if path is None:
        raise ContextInvalid(
            f"no cluster is given: no context is in use, and there is no ./{DEV_CONTEXT} here; "
            "name one with uccp.init(context_file=...)",
            reason="CONTEXT_INVALID",
        )
    content = _read(path)
    own_namespace = str(content.get("namespace", ""))
    if content.get("contextFile"):  # it stands for a file that another program keeps up to date
        path = path.parent / str(content["contextFile"])
        content = _read(path)
    context = Context(
        targets=_targets(content),
        source=str(path),
        token=token or os.environ.get("UCCP_TOKEN", "") or str(content.get("token", "")),
        namespace=namespace or own_namespace or str(content.get("namespace", "")),
    )
    if content.get("objects"):
        context.objects = str(path.parent / str(content["objects"]))
    if not context.targets:
        raise ContextInvalid(f'context file {path} names no "grpc" address', reason="CONTEXT_INVALID")
    for field in ("ca", "cert", "key"):
        setattr(context, field, _pem(path.parent, str(content.get(field, ""))))
    return context
