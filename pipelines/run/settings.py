"""Typed settings: the fields of a dataclass, their docstrings, and their values from text."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

TYPES = (str, int, float, bool)  # of a setting; a Literal of strings is a str with choices


def value_type(hint: Any) -> type:
    """Return the type of a setting's values: str for a Literal of strings."""
    return str if get_origin(hint) is Literal else hint


def parse(value: str, hint: Any, context: str) -> Any:
    """Parse a setting of type `hint`. Raises ValueError, beginning with `context`, for invalid text and for NaN."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{context}: expected one of {', '.join(filter(None, get_args(hint)))}, got {value!r}")
        return value
    if hint is bool:
        if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(f"{context}: expected true or false, got {value!r}")
        return value.lower() in ("true", "1", "yes")
    try:
        number = hint(value)
    except ValueError:
        raise ValueError(f"{context}: expected {hint.__name__}, got {value!r}") from None
    if number != number:  # NaN compares false with any threshold
        raise ValueError(f"{context}: expected a number, got {value!r}")
    return number


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Return the docstring under each field that a class declares itself, not those of its bases."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    if not isinstance(node, ast.ClassDef):
        raise TypeError(f"{kind!r} is not a class")
    return {ast.unparse(field.target): doc for field, doc in documented_fields(node)}


def documented_fields(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield the annotated fields of a class in order, each with the docstring under it, "" without one."""
    for field, following in pairwise([*node.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign):
            match following:
                case ast.Expr(value=ast.Constant(value=str(doc))):
                    yield field, " ".join(doc.split())
                case _:
                    yield field, ""
