"""What the demo computes: how often each identifier stands in one Python source file.

Rules of this file: plain Python that knows nothing of evener. The same function runs in the workers
and, for comparison, in one process.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final


def index(source: bytes) -> dict[str, Any]:
    """Count the identifiers of one source file, given as it lies on the disk.

    Returns `identifiers` (name: how often), `lines`, and `fault`: None, or why the file cannot be
    indexed, in one line.
    """
    lines = source.count(b"\n")
    try:
        tree = _parse(source)
    except _Unreadable as error:
        return {"identifiers": {}, "lines": lines, "fault": str(error)}
    return {"identifiers": dict(Counter(_identifiers(tree))), "lines": lines, "fault": None}


class _Unreadable(Exception):
    """Raised when bytes are not Python source; the text says why."""


def _parse(source: bytes) -> ast.Module:
    text = _decode(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the style of the file, to whoever wrote it
            return ast.parse(text)
    except SyntaxError as error:
        place = f"line {error.lineno}: " if error.lineno else ""
        raise _Unreadable(f"{place}{error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise _Unreadable("nested too deeply for the parser") from error
    except ValueError as error:  # null bytes, up to Python 3.11
        raise _Unreadable(str(error)) from error


def _decode(source: bytes) -> str:
    """The text of a source file by the rules of Python: its coding comment, a BOM, else UTF-8."""
    file = io.BytesIO(source)
    try:
        encoding, _ = tokenize.detect_encoding(file.readline)
        return source.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise _Unreadable(f"cannot be decoded: {error}") from error


# Where the syntax tree keeps identifiers as texts. Constants are texts too, but data.
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "Name": ("id",),
    "Attribute": ("attr",),
    "FunctionDef": ("name",),
    "AsyncFunctionDef": ("name",),
    "ClassDef": ("name",),
    "arg": ("arg",),
    "keyword": ("arg",),  # None for **arguments
    "alias": ("name", "asname"),
    "ImportFrom": ("module",),
    "Global": ("names",),
    "Nonlocal": ("names",),
    "ExceptHandler": ("name",),
    "MatchAs": ("name",),
    "MatchStar": ("name",),
    "MatchMapping": ("rest",),
    "MatchClass": ("kwd_attrs",),
    "TypeVar": ("name",),
    "ParamSpec": ("name",),
    "TypeVarTuple": ("name",),
}


def _identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        for field in _FIELDS.get(type(node).__name__, ()):
            value = getattr(node, field)
            if isinstance(value, list):
                yield from value
            elif value and value != "*":
                yield from value.split(".")  # `import os.path` names two
