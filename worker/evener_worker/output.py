"""Output of workers to the agent's own terminal: whole lines, the worker's name before each.

Rules of this file: never blocks. When the terminal takes nothing, lines wait up to a bound, and
then the workers' pipes are not read, so their prints wait as they would without an agent.
"""

from __future__ import annotations

import os
import re
import select
from collections import deque
from typing import Final

from evener_worker.limits import LINE_BYTES_MAX, LINE_CHARS_KEPT, LINES_KEPT, OUTPUT_BYTES_MAX

# A pipe that polls as writable takes this much without blocking.
_PART_BYTES: Final = select.PIPE_BUF
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

    __slots__ = ("_kept", "_partial", "_prefix")

    def __init__(self, prefix: bytes, kept: deque[str]) -> None:
        self._prefix = prefix
        self._partial = b""
        self._kept = kept

    def feed(self, data: bytes) -> bytes:
        """What to show of these bytes."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        while len(self._partial) > LINE_BYTES_MAX:
            lines.append(self._partial[:LINE_BYTES_MAX])
            self._partial = self._partial[LINE_BYTES_MAX:]
        return self._shown(lines)

    def end(self) -> bytes:
        """What is left, when no more will come."""
        lines = [self._partial] if self._partial else []
        self._partial = b""
        return self._shown(lines)

    def _shown(self, lines: list[bytes]) -> bytes:
        for line in lines[-LINES_KEPT:]:
            self._kept.append(plain(line))
        prefix = self._prefix
        return b"".join([prefix + harmless(line) + b"\n" for line in lines])


def kept_lines() -> deque[str]:
    """The last lines of a worker, for its death certificate."""
    return deque(maxlen=LINES_KEPT)


def harmless(line: bytes) -> bytes:
    """Without what steers a terminal. Of a line drawn over itself (`\\r`), the last state."""
    if line.isascii() and line.decode().isprintable():
        return line
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    return _STEERING.sub(lambda match: match[1] or b"?", line)


def plain(line: bytes) -> str:
    """As text for a record: no colours, bounded."""
    text = _STEERING.sub(b"", line.rstrip(b"\r").rpartition(b"\r")[2]).decode("utf-8", "replace")
    return text[:LINE_CHARS_KEPT]
