"""What programs over pipes can do wrong, as their caller sees it.

Rules of this file: data and sentences. `command` is what was started, `lines` the last it printed.
"""

from __future__ import annotations

from collections.abc import Sequence

from evener.texts import printable, seconds_text
from evener_worker.local.errors import PoolError, ended_text, output_text
from evener_worker.local.feed_limits import LINE_CHARS_SHOWN


class CommandError(PoolError):
    """Base of what goes wrong between this program and one that it started."""


class CommandStartError(CommandError):
    """Raised when a program could not be started, or did not say that it is ready."""

    FIELDS = ("command", "reason", "lines")

    def __init__(self, command: str, reason: str, lines: Sequence[str] = ()) -> None:
        super().__init__(f"{command} did not start: {reason}{output_text(lines)}")
        self.command = command
        self.reason = reason
        self.lines = tuple(lines)


class CommandEnded(CommandError):
    """Raised when something is wanted of a program that has ended, or ends meanwhile."""

    FIELDS = ("command", "exit_code", "signal", "lines", "note")

    def __init__(
        self,
        command: str,
        exit_code: int | None = None,
        signal: int | None = None,
        lines: Sequence[str] = (),
        note: str = "",
    ) -> None:
        super().__init__(f"{command} {ended_text(exit_code, signal, note)}{output_text(lines)}")
        self.command = command
        self.exit_code = exit_code
        self.signal = signal
        self.lines = tuple(lines)
        self.note = note


class BadMessage(CommandError):
    """Raised when a program wrote a line that is no message. It is destroyed then.

    `line` is the beginning of that line.
    """

    FIELDS = ("command", "line", "reason", "lines")

    def __init__(self, command: str, line: str, reason: str, lines: Sequence[str] = ()) -> None:
        shown = printable(line[:LINE_CHARS_SHOWN])
        super().__init__(
            f"{command} wrote a line that is no message ({reason}): {shown!r}; what is not a "
            f"message belongs on its stderr{output_text(lines)}"
        )
        self.command = command
        self.line = line
        self.reason = reason
        self.lines = tuple(lines)


class CommandTimeout(CommandError, TimeoutError):
    """Raised when a program did not do something within `seconds`."""

    FIELDS = ("command", "what", "seconds")

    def __init__(self, command: str, what: str, seconds: float) -> None:
        super().__init__(f"{command} {what} within {seconds_text(seconds)}")
        self.command = command
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])
