"""Workflows written in YAML: the same as in Python. docs/workflows.md has every key.

    definition = workflow.load_yaml("sweep.yaml")
    workflow.run(definition, rates=[0.1, 0.2])
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uccp import errors
from uccp.workflow.definition import Step, StepOptions, Workflow
from uccp.workflow.errors import WorkflowInvalid
from uccp.workflow.expressions import Expression, ExpressionInvalid, Filled, Judge, pieces_of
from uccp.workflow.graph import (
    UNTIL_ROUNDS,
    Body,
    ComputeNode,
    FlowNode,
    Graph,
    Item,
    MapNode,
    Node,
    ParameterNode,
    RescueNode,
    Scope,
    StepNode,
    UntilNode,
    WhenNode,
    nodes_in,
)
from uccp.workflow.yaml_reader import Located, read
from uccp_step import run_command

STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
RESERVED = ("item", "value", "error", "parameters", "true", "false", "null")
_DOCUMENT = {"workflow", "description", "parameters", "steps", "result", "workflows"}
_NUMBERS = {"cpu": (int, float), "gpus": (int, float), "retries": int, "timeout": (int, float), "priority": int}
_RUNS = {*_NUMBERS, "memory", "requirements", "env", "cache"}
_KINDS = ("call", "python", "command", "workflow")
_STEP = {*_KINDS, *_RUNS, "with", "each", "until", "start", "limit", "when", "otherwise", "or_else", "after", "output"}
OUTPUTS = ("text", "json", "lines")


class YamlWorkflow:
    """A workflow that was read from YAML; `build` makes its graph."""

    def __init__(
        self, text: str, name: str = "workflow.yaml", folder: str = ".", functions: Mapping[str, Step] | None = None
    ) -> None:
        self.text = text
        self.file = name
        self.document = _Document(read(text, name), folder, functions or {})
        self.name = self.document.name
        self.description = self.document.description
        self.document.check()

    def build(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Graph:
        """The graph for these parameters, which have names. Raises WorkflowInvalid."""
        if args:
            why = "parameters of a YAML workflow are given by their names"
            raise WorkflowInvalid(why, where=f"workflow {self.name}")
        return self.document.graph(kwargs, f"workflow {self.name}")

    def definition_digest(self) -> str:
        """Of the text, and of the functions that it calls."""
        functions = sorted(one.code_digest() for one in self.document.functions())
        return hashlib.sha256("\0".join([self.text, *functions]).encode()).hexdigest()

    def __reduce__(self) -> Any:
        return (_again, (self.text, self.file, self.document.loaded()))


def _again(text: str, file: str, functions: dict[str, Step]) -> YamlWorkflow:
    """A registered workflow, with the functions that it had."""
    return YamlWorkflow(text, file, functions=functions)


def load_yaml(path: str | os.PathLike[str]) -> YamlWorkflow:
    """Reads a workflow from a file; functions that it calls are looked for beside it first. Raises WorkflowInvalid."""
    file = pathlib.Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkflowInvalid(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise WorkflowInvalid(f"is not UTF-8: {error.reason} at byte {error.start}", where=str(path)) from None
    return YamlWorkflow(text, str(path), str(file.resolve().parent))


def parse_yaml(text: str, name: str = "workflow.yaml") -> YamlWorkflow:
    """A workflow from a text. Raises WorkflowInvalid."""
    return YamlWorkflow(text, name)


class _Document:
    """One workflow of a file: that of the file itself, or one of its `workflows`."""

    def __init__(self, root: Located, folder: str, functions: Mapping[str, Step], name: str = "") -> None:
        self.fields = _mapping(root, "a workflow", _DOCUMENT if not name else _DOCUMENT - {"workflow", "workflows"})
        self.root = root
        self.folder = folder
        self.came = functions  # with a registered workflow
        self.name = name or _text(_needed(root, self.fields, "workflow"), "the name of a workflow")
        try:
            self.name = Workflow(lambda: None, self.name).name
        except WorkflowInvalid as error:
            raise self.fields["workflow"].wrong(error.message) from None
        described = self.fields.get("description")
        self.description = _text(described, "a description").partition("\n")[0] if described else ""
        self.parameters = self._parameters()
        steps = _needed(root, self.fields, "steps")
        self.steps = {
            key: _YamlStep(self, key, one) for key, one in _mapping(steps, "the steps", None).items()
        }
        if not self.steps:
            raise steps.wrong("there are no steps")
        self.others: dict[str, _Document] = {}
        if "workflows" in self.fields:
            others = _mapping(self.fields["workflows"], "workflows", None)
            self.others = {key: _Document(one, folder, functions, key) for key, one in others.items()}
            for one in self.others.values():
                one.others = self.others

    def _parameters(self) -> dict[str, Located | None]:
        found: dict[str, Located | None] = {}
        if "parameters" in self.fields:
            for key, one in _mapping(self.fields["parameters"], "the parameters", None).items():
                if not STEP_NAME.fullmatch(key):
                    raise one.wrong(f"{key!r} is no name of a parameter")
                found[key] = None if one.value is None else one
        return found

    def all_steps(self) -> list[_YamlStep]:
        """Those of all workflows of the file."""
        return [one for document in (self, *self.others.values()) for one in document.steps.values()]

    def functions(self) -> list[Step]:
        return [one.step for one in self.all_steps() if one.step is not None]

    def loaded(self) -> dict[str, Step]:
        """Functions of modules, which a registered workflow takes along."""
        return {one.called: one.step for one in self.all_steps() if one.called and one.step is not None}

    def check(self) -> None:
        """Raises WorkflowInvalid for what no parameters can mend."""
        _no_circle(self)
        for one in self.all_steps():
            one.check()
        for document in (self, *self.others.values()):
            if "result" in document.fields:
                document.check_value(document.fields["result"], ())

    def check_value(self, value: Located, more: Sequence[str]) -> list[str]:
        """The steps that a value reads. Raises WorkflowInvalid for names that nothing has."""
        found: list[str] = []
        for expression, where in _expressions(value):
            for name in expression.names:
                if name in self.steps:
                    found.append(name)
                elif name != "parameters" and name not in more:
                    known = [*self.steps, "parameters", *more]
                    raise where.wrong(f"there is no step {name!r}{_near(name, known)}", reason="STEP_UNKNOWN")
            path = expression.path()
            if path is not None and path[0] == "parameters" and path[1] and path[1][0] not in self.parameters:
                near = _near(str(path[1][0]), list(self.parameters))
                raise where.wrong(f"there is no parameter {path[1][0]!r}{near}", reason="PARAMETER_UNKNOWN")
        return found

    def graph(self, given: Mapping[str, Any], where: str) -> Graph:
        with Scope() as scope:
            result = self.result(given, where)
        return Graph(scope.nodes, result).check()

    def result(self, given: Mapping[str, Any], where: str) -> Any:
        """Makes the nodes of all steps, and answers the value."""
        for name in given:
            if name not in self.parameters:
                raise WorkflowInvalid(
                    f"there is no parameter {name!r}{_near(name, list(self.parameters))}",
                    reason="PARAMETER_UNKNOWN",
                    where=where,
                )
        parameters: dict[str, Any] = {}
        for name, default in self.parameters.items():
            if name not in given and default is None:
                raise WorkflowInvalid(f"parameter {name!r} is missing", reason="MISSING_INPUT", where=where)
            parameters[name] = given[name] if name in given else default.plain()  # type: ignore[union-attr]
        made: dict[str, Any] = {}
        builder = _Builder(self, parameters, made)
        for name in self.steps:
            builder.step(name)
        if "result" in self.fields:
            return builder.value(self.fields["result"], {})
        return None


class _YamlStep:
    """A step as it is written, checked."""

    def __init__(self, document: _Document, name: str, written: Located) -> None:
        if not STEP_NAME.fullmatch(name) or name in RESERVED:
            taken = ", ".join(RESERVED)
            raise written.wrong(f"{name!r} is no name of a step: letters, digits and `_`, none of {taken}")
        self.document = document
        self.name = name
        self.written = written
        self.fields = _mapping(written, f"step {name}", _STEP)
        kinds = [one for one in _KINDS if one in self.fields]
        if len(kinds) != 1:
            raise written.wrong(f"step {name} needs one of {', '.join(_KINDS)}; it has {' and '.join(kinds) or 'none'}")
        self.kind = kinds[0]
        self.called = ""
        self.step: Step | None = None
        if "each" in self.fields and "until" in self.fields:
            raise self.fields["until"].wrong(f"step {name} has each and until: put one into a workflow of its own")
        for one, needs in (("start", "until"), ("limit", "until"), ("otherwise", "when"), ("output", "command")):
            if one in self.fields and needs not in self.fields:
                raise self.fields[one].wrong(f"{one} goes with {needs}, which step {name} has not")
        if "until" in self.fields and "start" not in self.fields:
            raise self.fields["until"].wrong("until needs start, the value to begin with")
        if self.kind == "workflow":
            for one in sorted(_RUNS & set(self.fields)):
                raise self.fields[one].wrong(f"{one} is for steps; the steps of the workflow say it themselves")
            _text(self.fields["workflow"], "the name of a workflow")
        else:
            self.step = self._function()
        self.limit = self._limit()
        after = _list(self.fields["after"], "after") if "after" in self.fields else []
        self.after = [_text(one, "a step") for one in after]
        self.arguments = _mapping(self.fields["with"], "with", None) if "with" in self.fields else {}

    def _limit(self) -> int:
        limit = self.fields.get("limit")
        if limit is None:
            return UNTIL_ROUNDS
        if type(limit.value) is not int or limit.value < 1:
            raise limit.wrong("limit is a number of rounds, at least 1")
        return limit.value

    def _function(self) -> Step:
        options = StepOptions(name=self.name)
        runs: dict[str, Any] = {}
        for key in sorted(_RUNS & set(self.fields)):
            runs[key] = self._option(key, self.fields[key])
        written = self.fields[self.kind]
        if self.kind == "call":
            function = self._imported(written)
        elif self.kind == "python":
            function = _compiled(_text(written, "python"), self.name, written)
        else:
            for one in _list(written, "command"):
                if isinstance(one.value, (dict, list)) or one.value is None:
                    raise one.wrong("a command is a list of texts")
            if not written.value:
                raise written.wrong("the command is empty")
            output = self.fields.get("output")
            if output is not None and output.value not in OUTPUTS:
                raise output.wrong(f"output is one of {', '.join(OUTPUTS)}")
            function = run_command
        if isinstance(function, Step):
            options, function = function.chosen, function.function
        try:
            step = Step(function, options).options(**runs)
        except errors.UccpError as error:
            raise self.written.wrong(error.message) from None
        return step

    def _option(self, key: str, written: Located) -> Any:
        value = written.plain()
        if key in _NUMBERS and (not isinstance(value, _NUMBERS[key]) or isinstance(value, bool) or value < 0):
            raise written.wrong(f"{key} is a number, not {value!r}")
        if key == "memory" and not isinstance(value, (int, str)):
            raise written.wrong(f'memory is a size such as "512Mi", not {value!r}')
        if key == "cache" and not isinstance(value, bool):
            raise written.wrong(f"cache is true or false, not {value!r}")
        if key == "requirements" and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise written.wrong("requirements is a list of packages")
        if key == "env":
            if not isinstance(value, dict) or any(isinstance(one, (dict, list)) for one in value.values()):
                raise written.wrong("env is a mapping of names to texts")
            return {name: str(one) for name, one in value.items()}
        return value

    def _imported(self, written: Located) -> Any:
        text = _text(written, "call")
        module_name, _, path = text.partition(":")
        if not module_name or not path:
            raise written.wrong(f'call is "module:function", not {text!r}')
        self.called = text
        if text in self.document.came:
            return self.document.came[text]
        before = list(sys.path)
        sys.path.insert(0, self.document.folder)
        try:
            found: Any = importlib.import_module(module_name)
            for part in path.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise written.wrong(f"{text} cannot be loaded: {type(error).__name__}: {error}", "CALL_UNKNOWN") from error
        finally:
            sys.path[:] = before
        if not callable(found):
            raise written.wrong(f"{text} is a {type(found).__name__}, which cannot be called", reason="CALL_UNKNOWN")
        return found

    def more(self) -> list[str]:
        """Names that its arguments may use besides those of steps."""
        return [one for one, key in (("item", "each"), ("value", "until")) if key in self.fields]

    def check(self) -> None:
        document = self.document
        if self.kind == "workflow" and self.fields["workflow"].value not in document.others:
            name = self.fields["workflow"].value
            near = _near(name, list(document.others))
            raise self.fields["workflow"].wrong(f"there is no workflow {name!r} in this file{near}")
        if self.kind == "workflow":
            other = document.others[self.fields["workflow"].value]
            for name, one in self.arguments.items():
                if name not in other.parameters:
                    near = _near(name, list(other.parameters))
                    why = f"workflow {other.name} has no parameter {name!r}{near}"
                    raise one.wrong(why, reason="PARAMETER_UNKNOWN")
            for name, default in other.parameters.items():
                if default is None and name not in self.arguments:
                    raise self.written.wrong(f"workflow {other.name} needs {name!r}", reason="MISSING_INPUT")
        elif self.kind == "command":
            if self.arguments:
                raise self.fields["with"].wrong("a command has no `with`; put values into its texts")
        elif self.step is not None:
            try:
                self.step._check((), dict.fromkeys(self.arguments))
            except WorkflowInvalid as error:
                raise self.written.wrong(error.message, reason=error.reason) from None
        for one in self.after:
            if one not in document.steps:
                raise self.fields["after"].wrong(
                    f"there is no step {one!r}{_near(one, list(document.steps))}", reason="STEP_UNKNOWN"
                )
        self.needs()
        if "until" in self.fields:
            self.condition("until")

    def condition(self, key: str) -> Expression:
        written = self.fields[key]
        pieces = _pieces(written) if isinstance(written.value, str) else []
        if len(pieces) != 1 or isinstance(pieces[0], str):
            raise written.wrong(f"{key} is one expression: ${{...}}")
        if key == "until" and any(one not in ("value", "parameters") for one in pieces[0].names):
            raise written.wrong("until reads `value` and `parameters` only")
        return pieces[0]

    def needs(self) -> list[str]:
        """The steps that it needs. Raises WorkflowInvalid for unknown ones."""
        found = list(self.after)
        inner = self.more()
        for key in ("with", "command"):
            if key in self.fields:
                found += self.document.check_value(self.fields[key], inner)
        for key in ("each", "start", "when", "otherwise", "or_else"):
            if key in self.fields:
                found += self.document.check_value(self.fields[key], ("error",) if key == "or_else" else ())
        return found


class _Builder:
    """Makes nodes of the steps of a document."""

    def __init__(self, document: _Document, parameters: Mapping[str, Any], made: dict[str, Any]) -> None:
        self.document = document
        self.parameters = parameters
        self.made = made

    def step(self, name: str) -> Any:
        left = [name]
        while left:
            one = left[-1]
            missing = [need for need in self.document.steps[one].needs() if need not in self.made]
            if missing:
                left.extend(missing)
                continue
            left.pop()
            if one not in self.made:
                self.made[one] = self._node(self.document.steps[one])
        return self.made[name]

    def _node(self, step: _YamlStep) -> Any:
        fields = step.fields
        if "each" in fields:
            node: Node = MapNode(self._body(step, "item"), self.value(fields["each"], {}), {}, step.name)
        elif "until" in fields:
            judge = Judge(step.condition("until"), "value", {"parameters": dict(self.parameters)})
            start = self.value(fields["start"], {})
            node = UntilNode(self._body(step, "value"), start, judge, step.limit, {}, step.name, False)
        else:
            node = self._call(step, {})
        for one in step.after:
            node.after(self.made[one])
        if "when" in fields:
            otherwise = self.value(fields["otherwise"], {}) if "otherwise" in fields else None
            condition = self.value(fields["when"], {})
            if not isinstance(condition, (Node, Item)):  # known already
                condition = ComputeNode(_Constant(bool(condition)), (), f"{step.name}-when")
            node = WhenNode(condition, node, otherwise, f"{step.name}-when")
        if "or_else" in fields:
            node = RescueNode(node, self._otherwise(fields["or_else"]))
        return node

    def _body(self, step: _YamlStep, name: str) -> Body:
        with Scope() as scope:
            place = ParameterNode(name)
            node = self._call(step, {name: place})
        return Body(Graph(scope.nodes, node), place)

    def _otherwise(self, written: Located) -> Body:
        with Scope() as scope:
            place = ParameterNode("error")
            value = self.value(written, {"error": place})
        return Body(Graph(scope.nodes, value), place)

    def _call(self, step: _YamlStep, more: Mapping[str, Any]) -> Node:
        arguments = {name: self.value(one, more) for name, one in step.arguments.items()}
        if step.kind == "workflow":
            other = self.document.others[step.fields["workflow"].value]
            return FlowNode(other.graph(arguments, f"step {step.name}"), step.name)
        if step.kind == "command":
            output = step.fields["output"].value if "output" in step.fields else "text"
            arguments = {"command": self.value(step.fields["command"], more), "output": output}
        return StepNode(step.step, (), arguments, step.name)

    def value(self, written: Located, more: Mapping[str, Any]) -> Any:
        """A value with its expressions filled in: with what is known already, else with nodes."""
        if isinstance(written.value, dict):
            return {key: self.value(one, more) for key, one in written.value.items()}
        if isinstance(written.value, list):
            return [self.value(one, more) for one in written.value]
        if not isinstance(written.value, str):
            return written.value
        pieces = _pieces(written)
        names = {"parameters": self.parameters, **self.made, **more}
        if len(pieces) == 1 and not isinstance(pieces[0], str):
            path = pieces[0].path()
            if path is not None and isinstance(names[path[0]], (Node, Item)):
                node = names[path[0]]
                for key in path[1]:
                    node = node[key]
                return node
        read = list(dict.fromkeys(name for one in pieces if not isinstance(one, str) for name in one.names))
        unknown = [name for name in read if _holds_nodes(names[name])]
        fixed = {name: names[name] for name in read if name not in unknown}
        filled = Filled(pieces, unknown, fixed)
        if unknown:
            return ComputeNode(filled, tuple(names[name] for name in unknown), "expression", written.value[:60])
        try:
            return filled()
        except ValueError as error:
            raise written.wrong(str(error)) from None


class _Constant:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def _holds_nodes(value: Any) -> bool:
    return next(nodes_in(value), None) is not None


def _pieces(written: Located) -> list[str | Expression]:
    try:
        return pieces_of(written.value)
    except ExpressionInvalid as error:
        raise written.wrong(str(error), reason="EXPRESSION_INVALID") from None


def _expressions(value: Located) -> list[tuple[Expression, Located]]:
    if isinstance(value.value, dict):
        return [found for one in value.value.values() for found in _expressions(one)]
    if isinstance(value.value, list):
        return [found for one in value.value for found in _expressions(one)]
    if not isinstance(value.value, str):
        return []
    return [(one, value) for one in _pieces(value) if not isinstance(one, str)]


def _mapping(value: Located, what: str, keys: set[str] | None) -> dict[str, Located]:
    if not isinstance(value.value, dict):
        raise value.wrong(f"{what} is a mapping")
    if keys is not None:
        for key, one in value.value.items():
            if key not in keys:
                raise one.wrong(f"{what} has no key {key!r}{_near(key, sorted(keys))}", reason="KEY_UNKNOWN")
    return value.value


def _list(value: Located, what: str) -> list[Located]:
    if not isinstance(value.value, list):
        raise value.wrong(f"{what} is a list")
    return value.value


def _text(value: Located, what: str) -> str:
    if not isinstance(value.value, str) or not value.value.strip():
        raise value.wrong(f"{what} is a text")
    return value.value


def _needed(root: Located, fields: Mapping[str, Located], key: str) -> Located:
    if key not in fields:
        raise root.wrong(f"the key {key!r} is missing")
    return fields[key]


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}" if known else ""


def _compiled(source: str, name: str, written: Located) -> Callable[..., Any]:
    """The function `run` of a source."""
    space: dict[str, Any] = {"__name__": "uccp_workflow_step"}
    try:
        exec(compile(source, f"<step {name}>", "exec"), space)  # noqa: S102: as the file of the user says
    except Exception as error:
        raise written.wrong(f"the source cannot be run: {type(error).__name__}: {error}") from None
    function = space.get("run")
    if not callable(function):
        raise written.wrong("the source defines no function `run`")
    return function  # type: ignore[no-any-return]


def _no_circle(document: _Document) -> None:
    """Raises WorkflowInvalid for steps, or workflows, that need each other."""
    for one in (document, *document.others.values()):
        _walk({name: step.needs() for name, step in one.steps.items()}, {k: s.written for k, s in one.steps.items()})
    used = {
        name: [step.fields["workflow"].value for step in one.steps.values() if step.kind == "workflow"]
        for name, one in document.others.items()
    }
    _walk(used, {name: one.root for name, one in document.others.items()})


def _walk(needs: Mapping[str, Sequence[str]], places: Mapping[str, Located]) -> None:
    done: set[str] = set()
    for start in needs:
        way, rest = [start], [iter(needs[start])]
        while way:
            following = next((one for one in rest[-1] if one in needs and one not in done), None)
            if following is None:
                done.add(way.pop())
                rest.pop()
            elif following in way:
                around = " <- ".join([*way[way.index(following) :], following])
                raise places[following].wrong(f"they need each other in a circle: {around}", reason="WORKFLOW_CYCLE")
            else:
                way.append(following)
                rest.append(iter(needs[following]))
