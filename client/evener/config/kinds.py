"""Kinds of values: how each is written on a command line or in the environment, and in TOML.

Rules of this file: reading only, no state. A value that is wrong raises `ValueError` with what to
write instead; whoever asked knows where the value stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from evener_wire.errors import UsageError

SIZE_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# SQLite's own limit is larger; below this a page number fits its 32 bits by far.
SIZE_MIN: Final = 1 << 20
SIZE_MAX: Final = 8 << 40

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

WORKERS_MAX: Final = 4_096
AUTO: Final = -1
"""One worker for each usable CPU: what `auto` becomes. 0 means that no process is started."""


class Kind(NamedTuple):
    """`read` takes a text, or a value of TOML, and gives the value of Python."""

    name: str
    read: Callable[[object], Any]
    example: str


# --- Readers --------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("give a text in quotes")
    return value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ValueError("give true or false")


def _whole(lowest: int, highest: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"give a whole number from {lowest:,} to {highest:,}")
        return value

    return read


def _workers(value: object) -> int:
    if value == "auto":
        return AUTO
    try:
        return _whole(0, WORKERS_MAX)(value)
    except ValueError:
        raise ValueError(f'give a whole number from 0 to {WORKERS_MAX:,}, or "auto"') from None


def _duration(value: object) -> float:
    from evener.options import parse_duration

    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        value = float(value)
    try:
        if not isinstance(value, bool):
            return parse_duration("", value)
    except UsageError:
        pass
    raise ValueError('give a duration such as "90s", "5m", "250ms", or a number of seconds')


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"it {error}") from None


def parse_size(value: object) -> int:
    """Bytes of a text such as `512MiB`, or of a number. Raises `ValueError`."""
    match = re.fullmatch(r"(\d{1,18})\s?([KMGT]iB|)", "" if type(value) is bool else str(value))
    if match is None:
        raise ValueError("is not a size; write 512MiB, 4GiB or a number")
    size = int(match[1]) * SIZE_UNITS[match[2]]
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise ValueError("is not between 1MiB and 8TiB")
    return size


def _address(value: object) -> str:
    from evener.discovery import check_address

    try:
        return check_address(_text(value), "")
    except (UsageError, ValueError):
        raise ValueError('give an address such as "tcp://127.0.0.1:7450"') from None


def _names(value: object) -> tuple[str, ...]:
    names = value.split() if isinstance(value, str) else value
    if isinstance(names, list):
        listed = cast("list[object]", names)
        if listed and all(isinstance(name, str) and name for name in listed):
            return tuple(str(name) for name in listed)
    raise ValueError('give a list of names such as ["default", "slow"]')


# --- Kinds ----------------------------------------------------------------------------------------

TEXT: Final = Kind("text", _text, '"text"')
FILE: Final = Kind("file", _text, '"file.journal"')
FLAG: Final = Kind("true or false", _flag, "true")
DURATION: Final = Kind("duration", _duration, '"30s"')
SIZE: Final = Kind("size", _size, '"4GiB"')
ADDRESS: Final = Kind("address", _address, '"tcp://127.0.0.1:7450"')
WORKERS: Final = Kind("number or auto", _workers, "4")
NAMES: Final = Kind("list of names", _names, '["default"]')
PORT: Final = Kind("port", _whole(0, 65_535), "7450")
COUNT: Final = Kind("number", _whole(1, 100_000_000), "100000")
TASKS: Final = Kind("number", _whole(1, 1_000_000_000), "1000")


def choice(words: Sequence[str]) -> Kind:
    """One of some words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        from difflib import get_close_matches

        close = get_close_matches(str(value), words, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise ValueError(f"give one of {', '.join(words)}{hint}")

    return Kind(" | ".join(words), read, f'"{words[0]}"')
