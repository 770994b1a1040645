"""How clients and workers write down what happens to them: one line each, at once, for good.

Rules of this file: it imports nothing of evener, and neither does what reads the lines
(`checker.py`). Every line is one write with O_APPEND, so that lines of processes that die do not
mix, and what was written stays. A function does not know which attempt of its task it is; the
checker numbers the starts of a task by their time.

    WHAT TOKEN PID NANOSECONDS [TEXT]

Nanoseconds are those of CLOCK_BOOTTIME, the same for all processes of a host, also in containers.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

HISTORY = "history"
FACTS = "facts"

# What a client tells ...
INVOKE = "invoke"  # with what may come of it: ok, timeout, poison, unknown, ... joined by |
ACCEPTED = "accepted"
OK = "ok"  # with what came
FAIL = "fail"  # with how it ended
# ... and what the function itself tells.
START = "start"
END = "end"
DIE = "die"  # in the next instant this process ends itself


def now_ns() -> int:
    """The clock of all histories."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Writer:
    """Appends to the history of a folder. Any thread, any process; opened anew after a fork."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder) / HISTORY
        self._pid = 0
        self._fd = -1

    def note(self, what: str, token: str, text: str = "") -> None:
        """One line, now. Raises OSError if not all of it could be written."""
        pid = os.getpid()
        if pid != self._pid:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd, self._pid = os.open(self._path, flags, 0o666), pid
        line = f"{what} {token} {pid} {now_ns()} {text}".rstrip() + "\n"
        data = line.encode()
        if os.write(self._fd, data) != len(data):
            raise OSError("half a line in the history")


def note_fact(folder: str | os.PathLike[str], what: str, **facts: object) -> None:
    """One line of what the run itself did: which fault it fired, whom it started, who died."""
    line = json.dumps({"what": what, **facts}).encode() + b"\n"
    fd = os.open(Path(folder) / FACTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if os.write(fd, line) != len(line):
            raise OSError("half a line of facts")
    finally:
        os.close(fd)
