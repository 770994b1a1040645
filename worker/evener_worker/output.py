"""Output of workers to the agent's own terminal: whole lines, the worker's name before each.

Rules of this file: never blocks. When the terminal takes nothing, lines wait up to a bound, and
then the workers' pipes are not read, so their prints wait as they would without an agent.
"""

from __future__ import annotations

import os
import re
import select
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from evener_worker.last_lines import CRASH, LastLines
from evener_worker.limits import LINE_BYTES_MAX, LINE_CHARS_KEPT, LINES_KEPT, OUTPUT_BYTES_MAX
from evener_worker.marking import BEGINS, BEGUN, ENDS, MARK, MARKS

# A pipe that polls as writable takes this much without blocking.
_PART_BYTES: Final = select.PIPE_BUF
_CRASH: Final = CRASH.encode()
# Colours may pass; whatever else steers a terminal may not.
_STEERING: Final = re.compile(rb"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b-\x1f\x7f]")


class Sink:
    """One of the agent's own outputs."""

    __slots__ = ("_poll", "_queue", "fd", "queued")

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd
        self.queued = 0
        self._queue: deque[memoryview] = deque()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, data: bytes) -> None:
        """Write now what can be written, keep the rest."""
        if data:
            self._queue.append(memoryview(data))
            self.queued += len(data)
            self.flush()

    def flush(self) -> None:
        """Write as much as is taken without blocking."""
        while self._queue:
            ready = self._poll.poll(0)
            if not ready:
                return
            part = self._queue[0]
            try:
                if not ready[0][1] & select.POLLOUT:
                    raise BrokenPipeError
                written = os.write(self.fd, part[:_PART_BYTES])
            except BlockingIOError:
                return
            except OSError:  # nobody reads any more
                self._queue.clear()
                self.queued = 0
                return
            self.queued -= written
            if written == len(part):
                self._queue.popleft()
            else:
                self._queue[0] = part[written:]

    @property
    def full(self) -> bool:
        """Whether more should not be read for it."""
        return self.queued > OUTPUT_BYTES_MAX


class Lines:
    """One output of one worker: bytes in, whole lines with a prefix out."""

    __slots__ = ("_begun", "_kept", "_partial", "_prefix", "_scope", "_task", "_whose", "taker")

    def __init__(self, prefix: bytes, kept: LastLines) -> None:
        self._prefix = prefix
        self._partial = b""
        self._kept = kept
        # The task that the marks name at this point, and where the line began; a mark so far.
        self._task = self._whose = b""
        # The task that all is of which no mark names one for.
        self._scope = b""
        self._begun = b""
        self.taker: Callable[[Sequence[tuple[str, str]]], None] | None = None
        """Gets each line, as text without colours, with the task that wrote it if that is known."""

    def feed(self, data: bytes) -> bytes:
        """What to show of these bytes."""
        lines: list[tuple[bytes, bytes]] = []
        if MARK not in data and not self._begun:
            self._split(data, lines)
            return self._shown(lines)
        # Texts, and between them what a mark names.
        parts = MARKS.split(self._begun + data)
        begun = BEGUN.search(parts[-1])
        self._begun = begun[0] if begun else b""
        parts[-1] = parts[-1].removesuffix(self._begun)
        for index, part in enumerate(parts):
            if index % 2:
                self._mark(part or b"", lines)
            else:
                self._split(part, lines)
        return self._shown(lines)

    def _mark(self, mark: bytes, lines: list[tuple[bytes, bytes]]) -> None:
        if mark == ENDS or mark.endswith(BEGINS):
            # No line is of two of them.
            if self._partial:
                lines.append((self._whose, self._partial))
                self._partial = b""
            self._scope = mark[:-1]
        self._task = self._scope if mark[-1:] in (b"", BEGINS, ENDS) else mark

    def _split(self, data: bytes, lines: list[tuple[bytes, bytes]]) -> None:
        if not data:
            return
        if not self._partial:
            self._whose = self._task
        whole = (self._partial + data).split(b"\n")
        self._partial = whole.pop()
        for line in whole:
            lines.append((self._whose, line))
            self._whose = self._task
        while len(self._partial) > LINE_BYTES_MAX:
            lines.append((self._whose, self._partial[:LINE_BYTES_MAX]))
            self._partial = self._partial[LINE_BYTES_MAX:]

    def end(self) -> bytes:
        """What is left, when no more will come."""
        left = self._partial + self._begun
        lines = [(self._whose, left)] if left else []
        self._partial = self._begun = b""
        return self._shown(lines)

    def _shown(self, lines: list[tuple[bytes, bytes]]) -> bytes:
        # Of many only the last are kept, but of a dump the head.
        all_of_them = self._kept.dumping or any(line.startswith(_CRASH) for _, line in lines)
        for _, line in lines if all_of_them else lines[-LINES_KEPT:]:
            self._kept.append(plain(line)[:LINE_CHARS_KEPT])
        if self.taker is not None and lines:
            self.taker([(task.decode(), plain(line)) for task, line in lines])
        prefix = self._prefix
        return b"".join([prefix + harmless(line) + b"\n" for _, line in lines])


def kept_lines() -> LastLines:
    """The last lines of a worker, for its death certificate."""
    return LastLines()


def harmless(line: bytes) -> bytes:
    """Without what steers a terminal. Of a line drawn over itself (`\\r`), the last state."""
    if line.isascii() and line.decode().isprintable():
        return line
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    return _STEERING.sub(lambda match: match[1] or b"?", line)


def plain(line: bytes) -> str:
    """As text for a record: no colours."""
    return _STEERING.sub(b"", line.rstrip(b"\r").rpartition(b"\r")[2]).decode("utf-8", "replace")
