"""Where a worker's generators put their values: to the agent, as far as its window allows.

Rules of this file: what stops a task may come while it waits here, and at no other moment, since a
frame that is read or written in part would be the end of the connection.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable

import msgpack

from evener.execution import Interrupted
from evener_wire.limits import STREAM_BYTES_MAX, STREAM_VALUES_MAX
from evener_wire.messages import Payload
from evener_worker import channel as c
from evener_worker import page as p


class Outlet:
    """Caller: the loop of the worker process, for the one attempt that runs."""

    def __init__(
        self,
        fd: int,
        page: memoryview,
        read: Callable[[], list[c.Frame]],
        write: Callable[[c.Frame], None],
    ) -> None:
        self._page = page
        self._read = read
        self._write = write
        self._readable = select.poll()
        self._readable.register(fd, select.POLLIN)
        # Sizes of the values that are not taken, and how many were yielded.
        self._untaken: deque[int] = deque()
        self._untaken_bytes = 0
        self._yielded = 0
        self.waiting: deque[c.Frame] = deque()
        """What else came meanwhile."""
        self.busy = False
        """Whether it reads or writes: no moment to be interrupted."""
        self.missed = False
        """Whether somebody wanted to."""

    def begin(self) -> None:
        """An attempt yields for the first time."""
        self._untaken.clear()
        self._untaken_bytes = self._yielded = 0
        self.missed = False

    def value(self, payload: Payload) -> None:
        """One value; waits while too many are not taken."""
        while len(self._untaken) >= STREAM_VALUES_MAX or self._untaken_bytes >= STREAM_BYTES_MAX:
            self._wait()
        self._send(True, payload)

    def end(self) -> None:
        """There are no more."""
        self._send(False, b"")
        self.drain()

    def drain(self) -> None:
        """Wait until all are taken; not if nobody wants the task any more."""
        page = self._page
        while self._untaken and page[p.STOP] != page[p.STARTED]:
            self._wait()

    def _send(self, more: bool, payload: Payload) -> None:
        self.busy = True
        try:
            body, buffers = c.pack_items([self._yielded, more, payload])
            self._write(c.Frame(c.YIELDED, self._page[p.STARTED], body=body, buffers=buffers))
            self._untaken.append(len(payload))
            self._untaken_bytes += len(payload)
            self._yielded += 1
        finally:
            self.busy = False
        self._interrupt()

    def _wait(self) -> None:
        self._readable.poll()
        self.busy = True
        try:
            for frame in self._read():
                if frame.kind != c.VALUES_TAKEN:
                    self.waiting.append(frame)
                elif frame.sequence == self._page[p.STARTED]:
                    self._taken(msgpack.unpackb(frame.body))
        finally:
            self.busy = False
        self._interrupt()

    def _taken(self, upto: int) -> None:
        while self._untaken and self._yielded - len(self._untaken) < upto:
            self._untaken_bytes -= self._untaken.popleft()

    def _interrupt(self) -> None:
        if self.missed:
            self.missed = False
            raise Interrupted(self._page[p.STOP_OUTCOME])
