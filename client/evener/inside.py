"""What a running task can ask and tell: whether it is to stop, its time, how far it is.

Rules of this file: no state but who answers; that is whoever runs tasks in this process. Outside of
a task, and in processes that a task started, the answers are "no" and "no limit".
"""

from __future__ import annotations

from typing import Protocol

from evener.errors import UsageError
from evener_wire import checks
from evener_wire.limits import PROGRESS_NOTE_CHARS_MAX

__all__ = ["cancelled", "progress", "time_left"]


class Host(Protocol):
    """Who runs tasks in this process: a worker, or a cluster without workers."""

    def is_stopping(self) -> bool:
        """Whether the task that runs was told to stop. It counts as told once this says so."""
        ...

    def left_s(self) -> float | None:
        """Seconds that the task has left; None: no limit."""
        ...

    def report(self, done: float, total: float | None, note: str) -> None:
        """How far the task is."""
        ...


_host: Host | None = None


def enter(host: Host | None) -> Host | None:
    """Make this the one who answers; who it was before."""
    global _host
    before, _host = _host, host
    return before


def cancelled() -> bool:
    """Whether the task that runs here is to stop: it was cancelled, or its time is over.

    For loops that can stop at a good place, in plain functions, async functions, and threads that a
    task started. A task that got True ends as cancelled, or as timed out, whatever it returns or
    raises. It has 0.1 s before it is interrupted, or the `grace` that its function was registered
    with. Costs less than a microsecond. False outside of a task.
    """
    return _host is not None and _host.is_stopping()


def time_left() -> float | None:
    """Seconds until the task that runs here is told to stop; 0.0 when they are over.

    Of `timeout` and `deadline` the one that comes first; for an item of a `map` its own time. None
    without a limit, and outside of a task. A task that returns in time is done, with what it has.
    """
    return None if _host is None else _host.left_s()


def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Tell whoever waits for the task that runs here how far it is.

    `done` of `total` (None: nobody knows), from 0; `note` is cut after 200 characters. Call it as
    often as you like: it costs a few microseconds and never waits, and the last thing said goes out
    ten times a second. Nothing rests on it; a task that runs anew begins anew. Raises `UsageError`
    for what is no such number. Does nothing outside of a task.
    """
    note = str(note)[:PROGRESS_NOTE_CHARS_MAX]
    try:
        checks.progress(done, total, note)
        note.encode()
    except ValueError as error:
        raise UsageError(f"progress({done!r}, {total!r}, ...): {error}") from None
    if _host is not None:
        _host.report(done, total, note)
