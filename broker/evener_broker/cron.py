"""When a cron expression is due next. The calendar is asked here, and nowhere else.

Rules of this file: it looks at no clock; the moment comes in. The parser is the package `cronsim`,
which whoever uses cron schedules installs beside the broker. Files of time zones are read once.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_SECOND_NS: Final = 1_000_000_000


class CronError(ValueError):
    """Raised for an expression that is none, a time zone nobody knows, or without `cronsim`."""


def next_due_ns(expression: str, zone: str, after_ns: int) -> int | None:
    """The first due time after a moment of the wall clock, both in ns since 1970; None: never.

    Raises `CronError`.
    """
    return _due_ns(expression, zone, after_ns // _SECOND_NS, reverse=False)


def last_due_ns(expression: str, zone: str, until_ns: int) -> int | None:
    """The last due time up to a moment, itself included; None: none. Raises `CronError`."""
    return _due_ns(expression, zone, until_ns // _SECOND_NS + 1, reverse=True)


def _due_ns(expression: str, zone: str, moment: int, *, reverse: bool) -> int | None:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise CronError(
            "the broker lacks the package cronsim: pip install 'evener[cron]' where it runs"
        ) from None
    try:
        found = CronSim(expression, datetime.fromtimestamp(moment, _zone(zone)), reverse)
        due = int(next(found).timestamp())
        while not reverse and due <= moment:  # in an hour that comes twice it gives the first one
            due = int(next(found).timestamp())
    except StopIteration:
        return None
    except (CronSimError, ValueError, OverflowError) as error:
        raise CronError(f'cron expression "{expression}" in zone "{zone}": {error}') from error
    return due * _SECOND_NS


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise CronError(f'there is no time zone "{name}" on this machine') from None
