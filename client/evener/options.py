"""How a task wants to be treated, as a user writes it, made into what the wire carries.

Rules of this file: no state. Every bad value is a `UsageError` that names the option, the value and
what is allowed. None means "no limit", as 0 does on the wire.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Container, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict

from evener_wire.checks import is_name
from evener_wire.errors import UsageError
from evener_wire.limits import (
    DURATION_NS_MAX,
    MAX_STARTS_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    RETRIES_MAX,
    SECOND_NS,
    TYPE_NAMES_MAX,
)
from evener_wire.messages import DEFAULT_OPTIONS, Options

Duration: TypeAlias = float | timedelta | str
"""Seconds, a timedelta, or a text such as "90s", "5m", "250ms"."""

RetryOn: TypeAlias = type[BaseException] | str | Iterable[type[BaseException] | str]
"""Exception types, or their full names ("ValueError", "requests.exceptions.Timeout")."""


class TaskOptions(TypedDict, total=False):
    """The options of a task. Not of a call: `submit` hands all keywords to the function.

    They may be given to `App.task()`, to `options()` of a function, to `Client.function()` and to
    `Client.map()`: `client.submit(demo.add.options(timeout="5s"), 1, 2)`.
    """

    queue: str
    """The line in which it waits, for workers that serve it; "default"."""
    priority: int
    """0 to 9, of which 9 goes first; 5."""
    retries: int
    """How often it is tried again after an exception, from 0 (the default) to 1,000."""
    retry_delay: Duration
    """Before the first of these; it doubles each time, with jitter. 0.1 s."""
    retry_on: RetryOn
    """After which exceptions; any."""
    max_starts: int
    """How many workers may die while they run it before it is lost, from 1 to 1,000; 3."""
    timeout: Duration | None
    """How long one attempt may run; then it is stopped, its slot is free, and `retries` count."""
    expires: Duration | None
    """How long it may wait until it runs for the first time; then it ends as expired."""
    deadline: Duration | None
    """How long all may take, from the submission; then it ends as expired, in whatever state."""
    at_most_once: bool
    """Never run it twice: where nobody can tell whether it ran, it is lost; False."""
    forward_output: bool
    """What it writes to stdout and stderr comes to its client, too (`Client.on_output`); False."""


def merge(base: Options | None, changes: TaskOptions) -> Options:
    """`base` with `changes` on top; what is not named stays. Raises `UsageError`."""
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        reader = _READERS.get(name)
        if reader is None:
            raise UsageError(_unknown(name))
        field, read = reader
        fields[field] = read(name, value)
    return (base or DEFAULT_OPTIONS)._replace(**fields)


def _unknown(name: str) -> str:
    if name == "grace":
        return "grace belongs to a function: @app.task(grace=...), not to single tasks of it"
    if name in ("concurrency", "threads"):
        return f"{name} belongs to a function: @app.task({name}=...), not to single tasks of it"
    close = difflib.get_close_matches(name, _READERS, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'unknown option "{name}".{hint} Options: {", ".join(_READERS)}'


def misplaced(keywords: Iterable[str], parameters: Container[str], instead: str) -> str:
    """A hint where somebody gave options of the task among the arguments of a call; or nothing.

    `instead` is what to write, with `{}` in the place of the options.
    """
    options = [name for name in keywords if name in _READERS and name not in parameters]
    given = ", ".join(f"{name}=..." for name in options)
    return f". For an option of the task write {instead.format(given)}" if options else ""


# --- Durations ------------------------------------------------------------------------------------

_SECONDS_MAX: Final = DURATION_NS_MAX // SECOND_NS
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*", re.ASCII)


def parse_duration(name: str, value: object) -> float:
    """The seconds of a duration, more than 0 or 0 itself. Raises `UsageError`, naming `name`."""
    seconds = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value if isinstance(value, float) or abs(value) <= _SECONDS_MAX else math.inf
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 <= seconds <= _SECONDS_MAX:
        raise UsageError(
            f"{name}={value!r} is not a duration: give seconds up to {_SECONDS_MAX:,}, a "
            'timedelta, or a text such as "90s", "5m", "250ms", "2h"'
        )
    return seconds


def _limit_ms(name: str, value: object) -> int:
    if value is None:
        return 0
    seconds = parse_duration(name, value)
    if seconds == 0:
        raise UsageError(f"{name}={value!r} leaves no time at all: give more than 0, or None")
    return math.ceil(seconds * 1000)


def read_delay_ms(name: str, value: object) -> int:
    """The milliseconds of a duration that may be 0. Raises `UsageError`, naming `name`."""
    return math.ceil(parse_duration(name, value) * 1000)


# --- The other kinds of values --------------------------------------------------------------------


def _queue(name: str, value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise UsageError(
            f"{name}={value!r} is not a name: give 1 to 128 printable characters without spaces"
        )
    return value


def _whole(least: int, most: int) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"{name}={value!r} is not a whole number from {least} to {most:,}")
        return int(value)

    return read


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} is neither True nor False")
    return value


def _retry_on(name: str, value: object) -> tuple[str, ...]:
    listed: Any = [value] if isinstance(value, (type, str)) else value
    names: list[str] = []
    try:
        for kind in listed:
            names.extend(_type_names(kind))
    except TypeError as error:
        raise UsageError(
            f"{name}={value!r} is neither an exception type, nor the full name of one, nor a "
            "sequence of them"
        ) from error
    if len(names) > TYPE_NAMES_MAX:
        raise UsageError(f"{name} has {len(names)} types (at most {TYPE_NAMES_MAX})")
    return tuple(dict.fromkeys(names))


def _type_names(kind: object) -> list[str]:
    if isinstance(kind, str) and kind.isprintable() and 0 < len(kind) <= 256:
        return [kind.removeprefix("builtins.")]
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        raise TypeError("not an exception type")
    names = [qualified_name(kind)]
    if kind.__module__ == "__main__":
        # A worker that loads the same file knows it by the name of the file.
        path = getattr(sys.modules["__main__"], "__file__", None)
        if path is not None:
            names.append(f"{Path(path).stem}.{kind.__qualname__}")
    return names


def qualified_name(kind: type) -> str:
    """How types are named on the wire: `ValueError`, `decimal.InvalidOperation`."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"[:256]


_READERS: Final[dict[str, tuple[str, Callable[[str, object], Any]]]] = {
    "queue": ("queue", _queue),
    "priority": ("priority", _whole(PRIORITY_MIN, PRIORITY_MAX)),
    "retries": ("retries", _whole(0, RETRIES_MAX)),
    "retry_delay": ("retry_delay_ms", read_delay_ms),
    "retry_on": ("retry_on", _retry_on),
    "max_starts": ("max_starts", _whole(1, MAX_STARTS_MAX)),
    "timeout": ("timeout_ms", _limit_ms),
    "expires": ("expires_ms", _limit_ms),
    "deadline": ("deadline_ms", _limit_ms),
    "at_most_once": ("at_most_once", _flag),
    "forward_output": ("forward_output", _flag),
}
