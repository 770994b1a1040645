"""What calls of a pool raise, besides what the work raised.

Rules of this file: data and sentences. Each error can be pickled, since workers meet them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from evener.errors import EvenerError
from evener.texts import printable, signal_text
from evener_worker.last_lines import CRASH

_LINES_SHOWN = 12
_LINES_BEFORE_A_CRASH = 4


class PoolError(EvenerError):
    """Base of what a pool raises of its own."""

    FIELDS: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self.FIELDS)


class WorkerStartError(PoolError):
    """Raised when a worker did not become ready.

    `worker` is its id, `reason` what it raised or how it ended, `lines` the last that it printed.
    """

    FIELDS = ("worker", "reason", "lines")

    def __init__(self, worker: int, reason: str, lines: Sequence[str] = ()) -> None:
        super().__init__(f"worker {worker} did not start: {reason}{output_text(lines)}")
        self.worker = worker
        self.reason = reason
        self.lines = tuple(lines)


class WorkerDied(PoolError):
    """Raised when the process that worked on a call ended before it answered.

    `worker` is its id; `exit_code` or `signal` says how it ended, or `note` where there is more to
    say. `lines` are the last that it printed.
    """

    FIELDS = ("worker", "exit_code", "signal", "lines", "note")

    def __init__(
        self,
        worker: int,
        exit_code: int | None = None,
        signal: int | None = None,
        lines: Sequence[str] = (),
        note: str = "",
    ) -> None:
        how = ended_text(exit_code, signal, note)
        super().__init__(f"worker {worker} {how}{output_text(lines)}")
        self.worker = worker
        self.exit_code = exit_code
        self.signal = signal
        self.lines = tuple(lines)
        self.note = note


class RequestTimeout(PoolError, TimeoutError):
    """Raised when there was no answer within `seconds`; `what` names what was asked."""

    FIELDS = ("what", "seconds")

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"no answer to {what} within {seconds:g} s")
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class PoolFull(PoolError):
    """Raised when there was no room for a call within the time its caller would wait."""

    def __init__(self, text: str = "as many calls are open as may be") -> None:
        super().__init__(text)


class PoolClosed(PoolError, RuntimeError):
    """Raised when a pool is used that was shut down, or in the child of a fork."""

    def __init__(self, text: str = "the pool is shut down") -> None:
        super().__init__(text)


def ended_text(exit_code: int | None, signal: int | None, note: str = "") -> str:
    """In words: how a process ended."""
    if note:
        return note
    if signal is not None:
        return f"died by {signal_text(signal)}"
    return "ended" if exit_code is None else f"ended with exit code {exit_code}"


def output_text(lines: Sequence[str]) -> str:
    """The last lines of a process, to follow a sentence."""
    kept = [printable(line) for line in lines if line.strip()]
    crash = [number for number, line in enumerate(kept) if line.startswith(CRASH)]
    if crash:
        kept = kept[max(0, crash[-1] - _LINES_BEFORE_A_CRASH) :]
    else:
        kept = kept[-_LINES_SHOWN:]
    return "\nits last output:\n  " + "\n  ".join(kept) if kept else ""
