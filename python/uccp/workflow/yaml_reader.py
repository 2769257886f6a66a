"""YAML as values that know where they are: `Located` for mappings, lists and scalars.

Scalars are those of YAML 1.2's core: `true`, `null`, numbers and text; `yes` and `010` are text and ten. There are no
anchors and tags. Raises WorkflowInvalid, which says file, line and column, for everything else.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from uccp.workflow.errors import WorkflowInvalid

BYTES_MAX = 1 << 20
DEPTH_MAX = 50
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]{1,300}$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_SPECIAL = re.compile(r"^([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)$")


class Located:
    """A value with its place. `value` is a dict of Located by text, a list of Located, or a scalar."""

    __slots__ = ("value", "where")

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def plain(self) -> Any:
        """Without places."""
        if isinstance(self.value, dict):
            return {key: one.plain() for key, one in self.value.items()}
        if isinstance(self.value, list):
            return [one.plain() for one in self.value]
        return self.value

    def wrong(self, message: str, reason: str = "WORKFLOW_INVALID") -> WorkflowInvalid:
        return WorkflowInvalid(message, reason=reason, where=self.where)


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer):
    """Composes nodes; all scalars are text."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)

    def descend_resolver(self, *_: Any) -> None: ...

    def ascend_resolver(self) -> None: ...

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return "plain" if kind is yaml.ScalarNode and implicit[0] else "other"

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not used here", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise yaml.composer.ComposerError(None, None, f"tags are not used here: {tag}", event.start_mark)
        return super().compose_node(parent, index)


def read(text: str, name: str) -> Located:
    """The one document of a text. `name` is that of the file."""
    if len(text.encode(errors="surrogatepass")) > BYTES_MAX:
        raise WorkflowInvalid(f"it has more than {BYTES_MAX} bytes", where=f"{name}:1:1")
    try:
        node = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        if mark is None:  # a character that YAML does not have
            at = min(getattr(error, "position", 0), len(text))
            before = text[:at]
            where = f"{name}:{before.count(chr(10)) + 1}:{at - before.rfind(chr(10))}"
        else:
            where = f"{name}:{mark.line + 1}:{mark.column + 1}"
        raise WorkflowInvalid(f"it is no YAML: {what}", reason="YAML_INVALID", where=where) from None
    except RecursionError:
        raise WorkflowInvalid("it is nested too deeply", reason="YAML_INVALID", where=f"{name}:1:1") from None
    if node is None:
        raise WorkflowInvalid("the file is empty", where=f"{name}:1:1")
    return _located(node, name, 0)


def _located(node: Any, name: str, depth: int) -> Located:
    where = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if depth > DEPTH_MAX:
        raise WorkflowInvalid(f"it is nested deeper than {DEPTH_MAX} levels", reason="YAML_INVALID", where=where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_located(one, name, depth + 1) for one in node.value], where)
    if isinstance(node, yaml.ScalarNode):
        return Located(_scalar(node.value) if node.tag == "plain" else node.value, where)
    found: dict[str, Located] = {}
    for key_node, value_node in node.value:
        key = _located(key_node, name, depth + 1)
        if not isinstance(key.value, (str, int, float, bool)):
            raise key.wrong("a key is a text", reason="YAML_INVALID")
        text = key_node.value
        if text in found:
            raise key.wrong(f"{text!r} is there twice", reason="YAML_INVALID")
        found[text] = _located(value_node, name, depth + 1)
    return Located(found, where)


def _scalar(text: str) -> Any:
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    special = _SPECIAL.match(text)
    return float("".join(special.groups())) if special else text
