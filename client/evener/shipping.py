"""Functions by value: for what no app registers. Made into bytes once, and into functions once.

Rules of this file: bytes are used again only while the function still is what it was when they were
made. A function of `__main__` carries the globals it names inside, so the cache remembers them too,
and a function that reaches anything that can change in place is never cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from evener.errors import NotSendable
from evener.function import Function
from evener.pickling import dump_by_value, load, type_label
from evener_wire.checks import is_name
from evener_wire.errors import PeerError
from evener_wire.limits import NAME_BYTES_MAX

SHIPPED_PREFIX = "~"
"""Names that begin with it mean: the function lies in the payload; any worker runs it."""

# Functions that a worker keeps ready. Larger: memory for functions of clients long gone. Smaller:
# a program with many functions has them unpickled again (about 50 us each).
_LOADED_MAX = 256

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
# Classes and modules count as such: who patches them at run time has to define the function anew.
_UNCHANGING = (*_PLAIN, ModuleType, type, CodeType, FunctionType, BuiltinFunctionType, Function)


def shipped_name(function: Callable[..., Any]) -> str:
    """The name under which a function by value runs and is counted, e.g. `~__main__.square`."""
    holder = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(holder, "__module__", None) or "builtins"
    name = f"{SHIPPED_PREFIX}{module}.{getattr(holder, '__qualname__', 'function')}"
    name = name.replace(" ", "_")
    while len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        name = name[:-1]
    return name if is_name(name) else f"{SHIPPED_PREFIX}function"


# --- To bytes, in the client ----------------------------------------------------------------------


class _Shipped(NamedTuple):
    code: bytes
    roots: list[object]


_shipped: WeakKeyDictionary[FunctionType, _Shipped] = WeakKeyDictionary()


def ship(function: Callable[..., Any]) -> bytes:
    """The bytes of a function. Raises `NotSendable`."""
    if not isinstance(function, FunctionType):
        return _dump(function)
    roots = list(_roots(function, set()))
    known = _shipped.get(function)
    if known is not None and _same(known.roots, roots):
        return known.code
    code = _dump(function)
    if all(_is_unchanging(root) for root in roots):
        _shipped[function] = _Shipped(code, roots)
    return code


def _dump(function: Callable[..., Any]) -> bytes:
    try:
        return dump_by_value(function)
    except Exception as error:
        what = f"function {shipped_name(function)[1:]}"
        text = f"is or uses something that is not picklable ({type(error).__name__}: {error})"
        raise NotSendable(what, type_label(function), text[:1_000]) from error


def _roots(function: FunctionType, seen: set[int]) -> Iterator[object]:
    """Everything that the bytes of a function were made from, functions it calls included."""
    if id(function) in seen:
        return
    seen.add(id(function))
    reached: list[object] = [*(function.__defaults__ or ())]
    reached += (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            reached.append(cell.cell_contents)
        except ValueError:  # not yet assigned
            reached.append(None)
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            reached.append(function.__globals__[name])
    yield function.__code__
    for value in reached:
        yield value
        inner = value.function if isinstance(value, Function) else value
        if isinstance(inner, FunctionType):
            yield from _roots(inner, seen)


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _same(before: list[object], now: list[object]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))


def _is_unchanging(value: object) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_unchanging, cast("Iterable[object]", value)))
    return isinstance(value, _UNCHANGING)


# --- To functions, in the worker ------------------------------------------------------------------


class Loaded:
    """The functions by value that a worker has seen, by digest of their bytes."""

    __slots__ = ("_functions",)

    def __init__(self) -> None:
        self._functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()

    def get(self, code: bytes) -> Callable[..., Any]:
        """The function of these bytes, which a trusted peer sent. Raises `PeerError`."""
        import hashlib  # here, because it costs 5 ms and workers of named functions never need it

        digest = hashlib.blake2b(code, digest_size=16).digest()
        function = self._functions.get(digest)
        if function is not None:
            self._functions.move_to_end(digest)
            return function
        loaded: Any = load(code)
        if not callable(loaded):
            raise PeerError("the function of the task is not callable")
        self._functions[digest] = loaded
        if len(self._functions) > _LOADED_MAX:
            self._functions.popitem(last=False)
        return self._functions[digest]
