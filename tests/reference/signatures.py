"""Signatures as the pages of the reference show them.

Rules of this file: types are shown as the source writes them, defaults by their value.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from typing import Final

import griffe

_WIDTH: Final = 96


def code(function: griffe.Function, name: str) -> str:
    """A block with its signature, or one for each overload."""
    shown = function.overloads or [function]
    return "```python\n" + "\n".join(_signature(one, name) for one in shown) + "\n```\n"


def _signature(function: griffe.Function, name: str) -> str:
    arguments = [*_arguments(function)]
    returned = "" if function.name == "__init__" else f" -> {function.returns}"
    begin = ("async " if "async" in function.labels else "") + name
    line = f"{begin}({', '.join(arguments)}){returned}"
    if len(line) <= _WIDTH:
        return line
    return f"{begin}(\n" + "".join(f"    {one},\n" for one in arguments) + f"){returned}"


def _arguments(function: griffe.Function) -> Iterator[str]:
    kinds = griffe.ParameterKind
    before: griffe.ParameterKind | None = None
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        if before is kinds.positional_only and kind is not before:
            yield "/"
        if kind is kinds.keyword_only and before not in (kind, kinds.var_positional):
            yield "*"
        star = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(kind or kinds.var_keyword)
        text = f"{star or ''}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and star is None:
            equals = " = " if parameter.annotation is not None else "="
            text += f"{equals}{_default(function, parameter)}"
        yield text
        before = kind
    if before is kinds.positional_only:
        yield "/"


def _default(function: griffe.Function, parameter: griffe.Parameter) -> str:
    """As it is written; of a constant its value."""
    written = str(parameter.default)
    try:
        ast.literal_eval(written)
    except ValueError:
        module = function.module.path
        found = attrgetter(function.path.removeprefix(f"{module}."))(import_module(module))
        default = inspect.signature(found).parameters[parameter.name].default
        return f"{default:_}" if type(default) is int else repr(default)
    return written
