"""What tasks wrote, as whoever submitted them sees it: on their own stdout and stderr, or as told.

Rules of this file: whoever brings lines never waits. A thread of its own, begun with the first
line, shows them; when it cannot keep up the oldest are left out, and that is said.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from evener.texts import plural, printable
from evener_wire.messages import attempt_of

if TYPE_CHECKING:
    from evener.session_records import Wrote

__all__ = ["OutputLine"]

_log = logging.getLogger("evener.client")

# What waits to be shown. More: memory. Fewer: a terminal that pauses misses lines.
_BYTES_MAX: Final = 4 << 20
_LINE_BYTES: Final = 256

_CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line that a task wrote, of one submitted with `forward_output=True`."""

    task_id: str
    function: str
    worker: str
    """Its name, with that of its host: `node-3:2`."""
    attempt: int
    """Which try it is of, from 1, since the broker started."""
    stream: Literal["stdout", "stderr"]
    text: str
    """Without its end, and without colours."""
    left_out: int = 0
    """If not 0, this is no line: so many are missing here."""

    @property
    def label(self) -> str:
        """Who wrote it: `demo.add[7f3a12bc] node-3:2`."""
        if not self.task_id:
            return "evener"
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return printable(f"{self.function}[{self.task_id[:8]}] {self.worker}{again}")

    def __str__(self) -> str:
        """The line behind who wrote it, with nothing in it that would steer a terminal."""
        return f"{self.label} | {self._said}"

    def coloured(self) -> str:
        """The same for a terminal."""
        return f"\033[2m{self.label} |\033[0m {self._said}"

    @property
    def _said(self) -> str:
        if self.left_out:
            return f"... {plural(self.left_out, 'line')} left out"
        return printable(self.text)


class Outputs:
    """Caller: any thread."""

    def __init__(self) -> None:
        self.callback: Callable[[OutputLine], object] | None = None
        """Gets the lines in place of stdout and stderr."""
        self._lines: deque[OutputLine] = deque()
        self._bytes = 0
        self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def tell(self, effect: Wrote) -> None:
        """Lines came. Caller: holder of the connection's lock."""
        with self._changed:
            for ticket, fence, worker, missing, stream, lines in effect.parts:
                whose = ticket.item[0].hex(), ticket.item[1], worker, attempt_of(fence)
                name: Literal["stdout", "stderr"] = "stdout" if stream == 1 else "stderr"
                if missing:
                    self._add(OutputLine(*whose, name, "", missing))
                for text in lines:
                    self._add(OutputLine(*whose, name, text))
            if self._thread is None and not self._closing:
                thread = threading.Thread(target=self._serve, name="evener-output", daemon=True)
                with suppress(RuntimeError):  # none to be had now: the next line tries again
                    thread.start()
                    self._thread = thread
            self._changed.notify_all()

    def _add(self, line: OutputLine) -> None:
        self._lines.append(line)
        self._bytes += _size(line)
        while self._bytes > _BYTES_MAX:
            oldest = self._lines.popleft()
            self._bytes -= _size(oldest)
            self._left_out += oldest.left_out or 1

    def close(self) -> None:
        """Shows what there is, for a moment at most, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)

    # --- Its thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (line := self._next()) is not None:
            callback = self.callback
            if callback is None:
                _show(line)
                continue
            try:
                callback(line)
            except Exception:
                _log.exception("a callback of on_output raised")

    def _next(self) -> OutputLine | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._lines) or self._closing)
            if self._left_out:
                line = OutputLine("", "", "", 1, "stderr", "", self._left_out)
                self._left_out = 0
                return line
            if not self._lines:
                return None
            line = self._lines.popleft()
            self._bytes -= _size(line)
            return line


def _size(line: OutputLine) -> int:
    return _LINE_BYTES + 4 * len(line.text)


def _show(line: OutputLine) -> None:
    to = sys.stdout if line.stream == "stdout" else sys.stderr
    with suppress(OSError, ValueError, AttributeError):  # closed, full, or not there at all
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not to.isatty()
        to.write((str(line) if plain else line.coloured()) + "\n")
        to.flush()
