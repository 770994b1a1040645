"""Checks of single values out of msgpack: each returns its value or raises `ValueError`.

Rules of this file: no message and no frame is known here, only values. What a check lets through
has the exact type (`True` is no whole number, nor is `1.0`) and stays within its bound. Error texts
repeat a few characters of what the other side sent, and never descend into it.
"""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Any, Final

from evener_wire import messages as m
from evener_wire.limits import (
    DURATION_NS_MAX,
    ID_BYTES,
    MAX_STARTS_MAX,
    MILLISECOND_NS,
    NAME_BYTES_MAX,
    OUTPUT_CHARS_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    PROGRESS_NOTE_CHARS_MAX,
    RETRIES_MAX,
    SCHEDULE_CALL_BYTES_MAX,
    SHARES_MAX,
    TEXT_CHARS_MAX,
    TYPE_NAME_CHARS_MAX,
    TYPE_NAMES_MAX,
)

WHOLE_MAX: Final = (1 << 63) - 1
MILLISECONDS_MAX: Final = DURATION_NS_MAX // MILLISECOND_NS

known_names: Final[set[str]] = set()
"""Names that passed, so that the name of a task costs one look-up. Bounded in number and length."""

_KNOWN_NAMES_MAX: Final = 4_096


def short(value: object) -> str:
    """A few characters of a value for an error text, whatever it is: nothing nested is shown."""
    if type(value) is str or type(value) is bytes:
        return repr(value if len(value) <= 40 else value[:37]) + ("..." if len(value) > 40 else "")
    if value is None or type(value) in (int, float, bool):
        return repr(value)
    return f"a {type(value).__name__}"


def whole(value: object, what: str, most: int = WHOLE_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{what} is not a whole number up to {most}: {short(value)}")
    return value


def flag(value: object, what: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{what} is not true or false: {short(value)}")
    return value


def text(value: object, what: str, most: int = TEXT_CHARS_MAX) -> str:
    if type(value) is not str or len(value) > most:
        raise ValueError(f"{what} is not a text of at most {most} characters")
    return value


def lines(value: object, what: str) -> str:
    """Nothing, or lines each of which ends with a line feed."""
    found = text(value, what, OUTPUT_CHARS_MAX)
    if found and found[-1] != "\n":
        raise ValueError(f"{what} does not end with a line feed")
    return found


def name(value: object, what: str) -> str:
    if type(value) is not str or not is_name(value):
        raise ValueError(f"{what} is not a name: {short(value)}")
    if len(known_names) >= _KNOWN_NAMES_MAX:
        known_names.clear()
    known_names.add(value)
    return value


def identity(value: object, what: str) -> bytes:
    if type(value) is not bytes or len(value) != ID_BYTES:
        raise ValueError(f"{what} is not an id of {ID_BYTES} bytes")
    return value


# Checks of what contains other values ask for `__class__`, as type checkers take the answer of
# `type()` for a container of unknown parts.


def array(value: Any, what: str, most: int) -> tuple[Any, ...]:
    if value.__class__ is not tuple or len(value) > most:
        raise ValueError(f"{what} is not an array of at most {most}")
    return value


def item(value: Any, what: str) -> tuple[Any, ...]:
    """An item of a batch. Without this a map or a text of the right length would unpack as one."""
    if value.__class__ is not tuple:
        raise ValueError(f"{what} is not an array: {short(value)}")
    return value


def attempts(value: object, most: int) -> tuple[tuple[bytes, int], ...]:
    """Pairs of task id and fence."""
    items = array(value, "items", most)
    for pair in items:
        task_id, fence = item(pair, "item")
        identity(task_id, "task id")
        whole(fence, "fence")
    return items


_FACT_TYPES: Final = frozenset((str, int, float, bool, bytes, type(None)))


def _is_fact(value: object) -> bool:
    # No NaN and no infinity: facts are shown as JSON, which has neither.
    return type(value) in _FACT_TYPES and (type(value) is not float or isfinite(value))


def facts(value: Any, what: str) -> m.Facts:
    if value.__class__ is not dict:
        raise ValueError(f"{what} is not a map: {short(value)}")
    for key, fact in value.items():
        if type(key) is not str or len(key) > NAME_BYTES_MAX:
            raise ValueError(f"{what} has a key that is not a name: {short(key)}")
        if fact.__class__ is tuple:
            if not all(map(_is_fact, fact)):
                raise ValueError(f"{what}[{short(key)}] is not a list of texts and numbers")
        elif not _is_fact(fact):
            raise ValueError(f"{what}[{short(key)}] is no text, number or list: {short(fact)}")
    return value


def number(value: object, what: str) -> int | float:
    """Whole or not, but finite and not below 0."""
    if type(value) is float and isfinite(value) and value >= 0:
        return value
    return whole(value, what)


def progress(done: object, total: object, note: object) -> None:
    """What a task says of how far it is."""
    number(done, "done")
    if total is not None:
        number(total, "total")
    text(note, "note", PROGRESS_NOTE_CHARS_MAX)


OVERLAPS: Final = ("skip", "queue", "cancel")
"""What a run does that is due while the last one is open."""

LATES: Final = ("once", "skip")
"""What becomes of runs that were due while nobody could make them."""


def schedule(value: Any) -> m.Schedule:
    """When a function is to run by itself; what `cron` and `zone` mean is not looked at here."""
    found = m.Schedule(*item(value, "schedule"))
    name(found.name, "schedule")
    name(found.function, "function")
    whole(found.every_ms, "every_ms", MILLISECONDS_MAX)
    text(found.cron, "cron", NAME_BYTES_MAX)
    text(found.zone, "zone", NAME_BYTES_MAX)
    if bool(found.every_ms) == bool(found.cron):
        raise ValueError("a schedule has either every_ms or cron")
    if found.overlap not in OVERLAPS or found.late not in LATES:
        raise ValueError("unknown policy of a schedule")
    whole(found.jitter_ms, "jitter_ms", MILLISECONDS_MAX)
    if type(found.call) is not bytes or len(found.call) > SCHEDULE_CALL_BYTES_MAX:
        raise ValueError(f"call is not bytes, at most {SCHEDULE_CALL_BYTES_MAX}")
    return found


def share(value: Any) -> tuple[str, int]:
    """How many tasks of a function run at once in one worker."""
    function, at_once = item(value, "share")
    if whole(at_once, "at once", SHARES_MAX) == 0:
        raise ValueError("a worker runs none at once")
    return name(function, "function"), at_once


def is_name(value: str) -> bool:
    """Whether this may name a function or a queue: printable, no spaces, at most 128 bytes.

    Names reach logs, terminals and records, so nothing that steers those may be in them.
    """
    return (
        0 < len(value) <= NAME_BYTES_MAX
        and len(value.encode("utf-8", "replace")) <= NAME_BYTES_MAX
        and value.isprintable()
        and " " not in value
        and "\ufffd" not in value
    )


_OPTIONS: Final = len(m.Options._fields)


def options(value: Any) -> m.Options | None:
    """How a task wants to be treated: nil, or an array whose missing last fields are defaults."""
    if value is None:
        return None
    if value.__class__ is not tuple or len(value) > _OPTIONS:
        raise ValueError(f"options are not an array of at most {_OPTIONS}")
    return _options(*value)


# Typed, or `5.0` would pass wherever `5` passed before. Many tasks share few sets of options.
@lru_cache(maxsize=1_024, typed=True)
def _options(*fields: Any) -> m.Options:
    options = m.Options(*fields)
    name(options.queue, "queue")
    if whole(options.priority, "priority", PRIORITY_MAX) < PRIORITY_MIN:
        raise ValueError(f"priority is below {PRIORITY_MIN}")
    whole(options.retries, "retries", RETRIES_MAX)
    for type_name in array(options.retry_on, "retry_on", TYPE_NAMES_MAX):
        text(type_name, "retry_on", TYPE_NAME_CHARS_MAX)
    if whole(options.max_starts, "max_starts", MAX_STARTS_MAX) == 0:
        raise ValueError("max_starts is 0")
    for limit in ("retry_delay_ms", "timeout_ms", "expires_ms", "deadline_ms"):
        whole(getattr(options, limit), limit, MILLISECONDS_MAX)
    flag(options.at_most_once, "at_most_once")
    flag(options.forward_output, "forward_output")
    return m.DEFAULT_OPTIONS if options == m.DEFAULT_OPTIONS else options
