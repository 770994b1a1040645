"""The last lines that the workers of this host wrote, for whoever asks: also those of dead workers.

Rules of this file: never waits, decides nothing. Bounded in lines and bytes; the oldest go first,
and every line has a number, so that a reader who comes back learns how many it missed. A reader who
wants to follow waits here, for a bounded time, until there is something for it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from evener_wire.limits import MILLISECOND_NS
from evener_worker import events as e
from evener_worker.limits import (
    LOG_ANSWER_BYTES_MAX,
    LOG_BYTES_MAX,
    LOG_LINES_MAX,
    LOG_LOOK_NS,
    LOG_WAIT_NS,
)

# What a line takes beside its text, in memory and in an answer.
_LINE_BYTES: Final = 128


class Line(NamedTuple):
    """A line of output: when it was read (milliseconds of Unix time), and whose it is."""

    time_ms: int
    worker: str
    pid: int
    stream: str
    task: str
    text: str

    def size(self) -> int:
        """What it counts towards the bounds."""
        return len(self.text) + _LINE_BYTES


@dataclass(slots=True)
class _Reader:
    number: int
    wanted: Mapping[str, Any]
    after: int  # the last line that it knows
    lost: int
    until_ns: int


class Logs:
    """Caller: the agent's loop. `events`: where answers go, for the core's next step."""

    def __init__(self, clock: Callable[[], int], events: list[e.Event]) -> None:
        self._clock = clock
        self._events = events
        # Positions in the lines of another agent, or of one before this, mean nothing here.
        self._ring: Final = os.urandom(8).hex()
        self._lines: deque[Line] = deque()
        self._first = 1
        self._bytes = 0
        self._readers: list[_Reader] = []
        self._look_ns = 0
        self._news = False

    # --- In ---------------------------------------------------------------------------------------

    def taker(self, worker: str, pid: int, fd: int) -> Callable[[Sequence[tuple[str, str]]], None]:
        """What takes the lines of one output of one worker: pairs of task and text."""
        stream = "stdout" if fd == 1 else "stderr"

        def take(lines: Sequence[tuple[str, str]]) -> None:
            time_ms = time.time_ns() // MILLISECOND_NS
            self._add([Line(time_ms, worker, pid, stream, task, text) for task, text in lines])

        return take

    def _add(self, lines: Sequence[Line]) -> None:
        kept = self._lines
        kept.extend(lines)
        self._bytes += sum(line.size() for line in lines)
        while len(kept) > LOG_LINES_MAX or self._bytes > LOG_BYTES_MAX:
            self._bytes -= kept.popleft().size()
            self._first += 1
        if self._readers and not self._news:
            # A little later, so that lines that come together are told together.
            self._news = True
            self._look_ns = self._clock() + LOG_LOOK_NS

    # --- Out --------------------------------------------------------------------------------------

    def ask(self, number: int, wanted: Mapping[str, Any]) -> None:
        """Tell what is wanted; `number` comes back with the answer."""
        after, lost = self._begin(wanted)
        wait_ms = wanted.get("wait_ms")
        wait_ns = wait_ms * MILLISECOND_NS if type(wait_ms) is int and wait_ms > 0 else 0
        until_ns = self._clock() + min(wait_ns, LOG_WAIT_NS)
        reader = _Reader(number, wanted, after, lost, until_ns)
        if not self._tell(reader, at_once=not wait_ns):
            self._readers.append(reader)

    def _begin(self, wanted: Mapping[str, Any]) -> tuple[int, int]:
        """After which line to begin, and how many that are wanted are gone."""
        after, tail = wanted.get("after"), wanted.get("tail")
        before = self._first - 1
        if type(after) is int and after >= 0 and wanted.get("ring") == self._ring:
            last = before + len(self._lines)
            return min(max(after, before), last), max(0, before - after)
        if type(tail) is not int or tail < 0:
            return before, before
        last = before + len(self._lines)
        for back, line in enumerate(reversed(self._lines)):
            if not tail:
                return last - back, 0
            tail -= _is_wanted(line, wanted)
        return before, before if tail else 0

    def _tell(self, reader: _Reader, *, at_once: bool) -> bool:
        """Answer if there is something to say, or if it must be now."""
        before = self._first - 1
        if reader.after < before:
            reader.lost += before - reader.after
            reader.after = before
        found: list[tuple[Any, ...]] = []
        size = 0
        more = False
        for line in islice(self._lines, reader.after - before, None):
            if _is_wanted(line, reader.wanted):
                size += 4 * len(line.text) + _LINE_BYTES
                if found and size > LOG_ANSWER_BYTES_MAX:
                    more = True
                    break
                found.append(tuple(line))
            reader.after += 1
        if not found and not at_once:
            return False
        answer = {
            "ring": self._ring,
            "after": reader.after,
            "lost": reader.lost,
            "more": more,
            "lines": found,
        }
        self._events.append(e.LogRead(reader.number, answer))
        return True

    def look(self) -> None:
        """Answer those who waited long enough, or for whom there is something."""
        if not self._readers:
            return
        now_ns = self._clock()
        due = self._news and now_ns >= self._look_ns
        if not due and now_ns < min(reader.until_ns for reader in self._readers):
            return
        self._news = self._news and not due
        self._readers = [
            reader
            for reader in self._readers
            if not self._tell(reader, at_once=now_ns >= reader.until_ns)
        ]

    def next_at(self) -> int | None:
        """When `look` has something to do."""
        if not self._readers:
            return None
        until_ns = min(reader.until_ns for reader in self._readers)
        return min(until_ns, self._look_ns) if self._news else until_ns


def _is_wanted(line: Line, wanted: Mapping[str, Any]) -> bool:
    worker, pid, task = wanted.get("worker"), wanted.get("pid"), wanted.get("task")
    return (
        (worker is None or line.worker == worker)
        and (pid is None or line.pid == pid)
        and (task is None or (isinstance(task, str) and line.task.startswith(task)))
    )
