"""What may be between `${` and `}`: a small part of Python's expressions, which reads values and can do nothing else.

`a.b` is `a["b"]`. There are comparisons, `and`, `or`, `not`, `if else`, `in`, numbers with `+ - * / // %`, text and
lists with `+`, indexes and slices, lists and dictionaries, and FUNCTIONS.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

LENGTH_MAX = 1000
RANGE_MAX = 100_000
CONSTANTS = {"true": True, "false": False, "null": None}


def _range(*bounds: int) -> list[int]:
    found = range(*bounds)
    if len(found) > RANGE_MAX:
        raise ValueError(f"range() has at most {RANGE_MAX} numbers here")
    return list(found)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "float": float,
    "int": int,
    "json": json.loads,
    "keys": lambda value: list(value),
    "len": len,
    "max": max,
    "min": min,
    "range": _range,
    "round": round,
    "sorted": sorted,
    "str": str,
    "sum": sum,
    "values": lambda value: list(value.values()),
}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Not: lambda a, _: not a,
    ast.USub: lambda a, _: -a,
    ast.UAdd: lambda a, _: +a,
}
_ALLOWED = (
    *_OPERATORS,
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Load),
    *(ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.IfExp),
)
_NUMBERS_ONLY = (ast.Mult, ast.Mod)  # of text they could make gigabytes
PIECE = re.compile(r"\$\{(.*?)\}", re.S)


class ExpressionInvalid(Exception):
    """Why a text is no expression."""


class Expression:
    """An expression, checked. `names` are those that it reads, in order."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        if len(text) > LENGTH_MAX:
            raise ExpressionInvalid(f"an expression has at most {LENGTH_MAX} characters")
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            raise ExpressionInvalid(f"${{{self.text}}} is no expression: {why}") from None
        names: dict[str, None] = {}
        for node in ast.walk(self._tree):
            self._check(node)
            if isinstance(node, ast.Name) and node.id not in FUNCTIONS and node.id not in CONSTANTS:
                names[node.id] = None
        self.names = list(names)

    def _check(self, node: ast.AST) -> None:
        if not isinstance(node, _ALLOWED):
            raise ExpressionInvalid(f"${{{self.text}}}: {type(node).__name__} cannot be used in an expression")
        if isinstance(node, ast.Call) and (
            not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords
        ):
            raise ExpressionInvalid(f"${{{self.text}}}: there is no such function; there are {', '.join(FUNCTIONS)}")
        if isinstance(node, ast.Dict) and None in node.keys:
            raise ExpressionInvalid(f"${{{self.text}}}: `**` cannot be used in an expression")
        if isinstance(node, ast.Constant) and isinstance(node.value, (bytes, complex, type(...))):
            raise ExpressionInvalid(f"${{{self.text}}}: {node.value!r} cannot be used in an expression")

    def path(self) -> tuple[str, tuple[Any, ...]] | None:
        """The name and the keys, if it only says where something is: `a.b[0]`."""
        keys: list[Any] = []
        node = self._tree
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                keys.append(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                keys.append(node.slice.value)
            else:
                return None
            node = node.value
        if node.id in CONSTANTS or node.id in FUNCTIONS:
            return None
        return node.id, tuple(reversed(keys))

    def value(self, names: Mapping[str, Any]) -> Any:
        """Raises what an evaluation raises, with the expression in its text."""
        try:
            return self._value(self._tree, names)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, AttributeError) as error:
            why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"${{{self.text}}}: {why}") from None

    def _value(self, node: Any, names: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return names[node.id] if node.id not in CONSTANTS else CONSTANTS[node.id]
        of = lambda one: self._value(one, names)  # noqa: E731
        if isinstance(node, ast.Attribute):
            return of(node.value)[node.attr]
        if isinstance(node, ast.Subscript):
            return of(node.value)[of(node.slice)]
        if isinstance(node, ast.Slice):
            return slice(*(None if one is None else of(one) for one in (node.lower, node.upper, node.step)))
        if isinstance(node, (ast.List, ast.Tuple)):
            return [of(one) for one in node.elts]
        if isinstance(node, ast.Dict):
            return {of(key): of(one) for key, one in zip(node.keys, node.values, strict=True)}
        if isinstance(node, ast.IfExp):
            return of(node.body) if of(node.test) else of(node.orelse)
        if isinstance(node, ast.Call):
            return FUNCTIONS[node.func.id](*map(of, node.args))  # type: ignore[attr-defined]
        return self._operation(node, of)

    def _operation(self, node: Any, of: Callable[[Any], Any]) -> Any:
        if isinstance(node, ast.BoolOp):
            wanted = isinstance(node.op, ast.Or)
            for one in node.values:
                value = of(one)
                if bool(value) is wanted:
                    break
            return value
        if isinstance(node, ast.UnaryOp):
            return _OPERATORS[type(node.op)](of(node.operand), None)
        if isinstance(node, ast.BinOp):
            left, right = of(node.left), of(node.right)
            if isinstance(node.op, _NUMBERS_ONLY) and not all(isinstance(one, (int, float)) for one in (left, right)):
                raise TypeError("`*` and `%` are for numbers")
            return _OPERATORS[type(node.op)](left, right)
        left = of(node.left)
        for sign, right_node in zip(node.ops, node.comparators, strict=True):
            right = of(right_node)
            if not _OPERATORS[type(sign)](left, right):
                return False
            left = right
        return True

    def __reduce__(self) -> Any:
        return (Expression, (self.text,))


class Judge:
    """An expression of one value and fixed ones, as a function."""

    def __init__(self, expression: Expression, name: str, fixed: Mapping[str, Any]) -> None:
        self.expression = expression
        self.name = name
        self.fixed = dict(fixed)

    def __call__(self, value: Any) -> Any:
        return self.expression.value({**self.fixed, self.name: value})


class Filled:
    """A text with expressions in it, or one expression, as a function of the values that it reads."""

    def __init__(self, pieces: list[str | Expression], names: list[str], fixed: Mapping[str, Any]) -> None:
        self.pieces = pieces
        self.names = names
        self.fixed = dict(fixed)

    def __call__(self, *values: Any) -> Any:
        names = {**self.fixed, **dict(zip(self.names, values, strict=True))}
        found = [one if isinstance(one, str) else one.value(names) for one in self.pieces]
        return found[0] if len(found) == 1 else "".join(one if isinstance(one, str) else str(one) for one in found)


def pieces_of(text: str) -> list[str | Expression]:
    """A text in its parts; `$${` is `${` as text. Raises ExpressionInvalid."""
    found: list[str | Expression] = []
    at = 0
    plain = ""
    for match in PIECE.finditer(text):
        if match.start() < at:
            continue
        plain += text[at : match.start()]
        at = match.end()
        if plain.endswith("$"):
            plain = plain[:-1] + match.group()
            continue
        if plain:
            found.append(plain)
            plain = ""
        found.append(Expression(match.group(1)))
    plain += text[at:]
    if "${" in plain.replace("$${", "") and not PIECE.search(plain):
        raise ExpressionInvalid(f"{text!r} has a `${{` without a `}}`; text is written `$${{`")
    return [*found, plain] if plain or not found else found
