"""Whose output is it? What Python writes in a worker says so itself, unseen, around each write.

Both ends stand here. The worker marks what `print`, `logging` and the like write while a task runs;
the agent takes the marks out again (`output.py`). Rules of this file: what goes anywhere else than
to the agent stays as it is. C code and other programs write past this, and mark nothing. Where the
client wants to see what a task writes, a mark of another kind says when it begins and ends, and all
between these is its own: a worker runs one task at a time.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from evener_worker.limits import LINE_BYTES_MAX

if TYPE_CHECKING:
    from evener_wire.messages import Buffer

# A control character that texts do not have: record separator.
MARK: Final = b"\x1e"
_END: Final = MARK + MARK

# A whole mark, with the id of the task in digits where its text begins, and a plus where the task
# does; a minus where that ends. And a mark that is not all there.
MARKS: Final = re.compile(rb"\x1e([0-9a-f]{32}\+?|-)?\x1e")
BEGUN: Final = re.compile(rb"\x1e(?:[0-9a-f]{0,32}|[0-9a-f]{32}\+|-)\Z")
BEGINS: Final = b"+"
ENDS: Final = b"-"

Running = Callable[[], bytes | None]
"""Tells the id of the task that runs."""


class Marked(io.FileIO):
    """One output of a worker."""

    def __init__(self, fd: int, running: Running) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._running = running
        self._where = _where(fd)

    def write(self, data: Buffer, /) -> int:
        """Write all of it, between two marks while a task runs."""
        task_id = self._running()
        if task_id is None or not self.is_here():
            return super().write(data)
        plain = bytes(data)
        left = memoryview(b"".join((MARK, task_id.hex().encode(), MARK, plain, _END)))
        while left:
            written: int | None = super().write(left)
            if written is None:  # user code made it non-blocking, and nobody reads
                break
            left = left[written:]
        return len(plain)

    def is_here(self) -> bool:
        """Whether it leads to the agent: user code may have put a file of its own there."""
        return _where(self.fileno()) == self._where


Aside = Callable[[], "dict[int, str] | None"]
"""Where the task that runs keeps what is no whole line, by descriptor; None: no other is there."""


class MarkedText(io.TextIOWrapper):
    """The text that goes into one. Where tasks run side by side, whole lines of one at a time."""

    def __init__(self, marked: Marked, encoding: str) -> None:
        super().__init__(
            io.BufferedWriter(marked),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
        self._marked = marked
        self._lock = threading.Lock()
        self.aside: Aside | None = None

    def write(self, text: str, /) -> int:
        """As ever, but that lines of tasks side by side do not mix."""
        aside = None if self.aside is None else self.aside()
        if aside is None:
            return super().write(text)
        fd = self._marked.fileno()
        whole, newline, rest = (aside.get(fd, "") + text).rpartition("\n")
        piece = ""
        if len(rest) > LINE_BYTES_MAX:
            piece, rest = rest, ""
        aside[fd] = rest
        if whole or newline:
            self.put(whole + newline)
        if piece:
            self.put_line(piece)
        return len(text)

    def put_line(self, text: str) -> None:
        """Write this as a line of its own, so that what another task writes next is none of it."""
        self.put(f"{text}\n" if self._marked.is_here() else text)

    def put(self, text: str) -> None:
        """Write this at once, behind what waits to be flushed."""
        with self._lock:
            self.flush()
            self._marked.write(text.encode(self.encoding, "backslashreplace"))


_texts: Final[dict[int, MarkedText]] = {}
"""By descriptor, once they are marked."""


def side_by_side(aside: Aside) -> None:
    """From now on tasks run side by side here."""
    for text in _texts.values():
        text.aside = aside


def spill(aside: dict[int, str]) -> None:
    """A task of those ends: what it wrote and is no whole line."""
    for fd, rest in aside.items():
        if rest and fd in _texts:
            _texts[fd].put_line(rest)
    aside.clear()


class Scope:
    """Around tasks whose clients want to see what they write. Caller: the worker's loop."""

    def __init__(self) -> None:
        self._streams: Sequence[io.TextIOWrapper] = ()
        self._where: dict[int, tuple[int, int]] = {}
        self._flush_c: Callable[[], object] = lambda: None

    def enter(self, streams: Sequence[io.TextIOWrapper]) -> None:
        """These are the outputs of the process."""
        import ctypes

        libc = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        self._flush_c = partial(libc.fflush, stdout)
        self._streams = streams
        self._where = {stream.fileno(): _where(stream.fileno()) for stream in streams}

    def begin(self, task_id: bytes) -> None:
        """The task begins. What others left in buffers is not its own."""
        self._mark(task_id.hex().encode() + BEGINS)

    def end(self) -> None:
        """It has ended. What it left in buffers is its own."""
        self._mark(ENDS)

    def _mark(self, what: bytes) -> None:
        with suppress(OSError, ValueError):  # user code closed it
            for stream in self._streams:
                stream.flush()
        self._flush_c()
        for fd, where in self._where.items():
            with suppress(OSError):
                # Never waits: whoever cannot be told now would wait with its next line anyway.
                ready = select.select((), (fd,), (), 0)[1]
                if ready and _where(fd) == where:
                    os.write(fd, MARK + what + MARK)


def _where(fd: int) -> tuple[int, int]:
    """What a descriptor leads to: user code may have put a file of its own there."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def mark_output(running: Running) -> Sequence[io.TextIOWrapper]:
    """From now on what Python writes says which task it is of. Returns both outputs."""
    sys.stdout.flush()
    _texts.update(
        (fd, MarkedText(Marked(fd, running), stream.encoding))
        for fd, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    sys.stdout, sys.stderr = _texts[1], _texts[2]
    return _texts[1], _texts[2]
