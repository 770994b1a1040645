"""Functions whose tasks take a part of a worker: many at once on its event loop, or in threads.

Rules of this file: what may be asked for and of which function, no state. What becomes of it is
decided by the broker (how much one agent gets), the agent (which worker) and the worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from evener_wire.errors import UsageError
from evener_wire.limits import SHARES_MAX


class Share(NamedTuple):
    """How many tasks of a function run at once in one worker, and which option said so."""

    option: str
    at_once: int


class Traits(NamedTuple):
    """What belongs to a function, and not to single tasks of it."""

    grace_ms: int | None
    share: Share | None


def read_share(concurrency: object, threads: object) -> Share | None:
    """What the two options say together. Raises `UsageError`."""
    if concurrency is not None and threads is not None:
        raise UsageError(
            "concurrency= and threads= exclude each other: concurrency= runs async functions on an "
            "event loop, threads= runs plain functions in threads"
        )
    for option, value in (("concurrency", concurrency), ("threads", threads)):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= SHARES_MAX:
            raise UsageError(f"{option}={value!r} is not a whole number from 1 to {SHARES_MAX}")
        return Share(option, int(value))
    return None


def check_share(name: str, function: Callable[..., Any], share: Share | None) -> None:
    """Whether this function can run as asked. Raises `UsageError`, naming the remedy."""
    if share is None:
        return
    option, at_once = share
    wanted = f"{option}={at_once}"
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if option == "concurrency" and not is_async:
        what = "generator" if inspect.isgeneratorfunction(function) else "function"
        raise UsageError(
            f'{wanted} of "{name}", a plain {what}: it would hold up all others on the event '
            f"loop; write threads={at_once}, or make it an async def"
        )
    if option == "threads" and is_async:
        raise UsageError(
            f'{wanted} of "{name}", an async def: it needs no threads; write concurrency={at_once}'
        )
