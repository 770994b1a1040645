"""What one epoll watches, and the output of workers on its way to the terminal of their parent.

Their parent is an agent, or the program that has a pool. Rules of this file: never blocks. Lines,
sinks and their bounds are those of `output.py`.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from functools import partial
from typing import Final

from evener_worker.output import Lines, Sink
from evener_worker.process import WorkerProcess

_READ: Final = select.EPOLLIN
_PIPE_BYTES: Final = 64 * 1_024


# Others may still be writing to a pipe that is emptied; it holds as much as one read takes.
_READS_BEFORE: Final = 2
_READS_LAST: Final = 16


class Descriptors:
    """What one epoll watches, and who is called."""

    __slots__ = ("_handlers", "epoll")

    def __init__(self, epoll: select.epoll, handlers: dict[int, Callable[[int], None]]) -> None:
        self.epoll: Final = epoll
        self._handlers: Final = handlers

    def watch(self, fd: int, handler: Callable[[int], None], mask: int = _READ) -> None:
        """Call the handler with what happens to a descriptor."""
        self._handlers[fd] = handler
        self.epoll.register(fd, mask)

    def watches(self, fd: int) -> bool:
        """Whether it does."""
        return fd in self._handlers

    def expect_room(self, fd: int, expected: bool) -> None:
        """Whether to call also when it takes more."""
        if fd in self._handlers:
            self.epoll.modify(fd, _READ | select.EPOLLOUT if expected else _READ)

    def forget(self, fd: int) -> None:
        """Not any more."""
        if self._handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def turn(self, seconds: float | None) -> None:
        """Wait up to so long, and call the handlers."""
        for fd, mask in self.epoll.poll(seconds):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)


class Terminal:
    """The pipes of all workers on one side, the parent's outputs on the other."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._sinks = {1: Sink(1), 2: Sink(2)}
        self._paused: list[tuple[int, int, Lines]] = []
        self._waiting: set[int] = set()

    def add(self, process: WorkerProcess) -> None:
        """Show what a process prints."""
        for fd, (to, lines) in process.pipes.items():
            self._watch(fd, to, lines)

    def read_before(self, process: WorkerProcess) -> None:
        """Show what it wrote before that of which its socket tells, as far as there is room."""
        for fd, (to, lines) in process.pipes.items():
            if self._descriptors.watches(fd) and not self._sinks[to].full:
                self._read(fd, to, lines, _READS_BEFORE)

    def remove(self, process: WorkerProcess) -> None:
        """The process ended: show what is left."""
        for fd, (to, lines) in process.pipes.items():
            self._descriptors.forget(fd)
            # Bounded: a pipe holds 64 KiB, and whoever else still writes to it was killed.
            self._read(fd, to, lines, _READS_LAST)
            self.write(to, lines.end())
        self._paused = [paused for paused in self._paused if paused[0] not in process.pipes]

    def write(self, to: int, data: bytes) -> None:
        """Show something else."""
        self._sinks[to].write(data)
        if self._sinks[to].queued and to not in self._waiting:
            self._waiting.add(to)
            self._descriptors.watch(to, lambda _: self._on_room(to), select.EPOLLOUT)

    def flush(self) -> None:
        """Write what the outputs take now."""
        for sink in self._sinks.values():
            sink.flush()

    def _watch(self, fd: int, to: int, lines: Lines) -> None:
        # No closure that names itself: nothing of a dead worker waits for the collector.
        self._descriptors.watch(fd, partial(self._on_pipe, fd, to, lines))

    def _on_pipe(self, fd: int, to: int, lines: Lines, mask: int) -> None:
        if self._sinks[to].full:
            self._paused.append((fd, to, lines))
            self._descriptors.forget(fd)
            return
        try:
            data = os.read(fd, _PIPE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._descriptors.forget(fd)
        self.write(to, lines.feed(data) if data else lines.end())

    def _read(self, fd: int, to: int, lines: Lines, most: int) -> None:
        for _ in range(most):
            try:
                data = os.read(fd, _PIPE_BYTES)
            except OSError:
                break
            if not data:
                break
            self.write(to, lines.feed(data))

    def _on_room(self, to: int) -> None:
        sink = self._sinks[to]
        sink.flush()
        if sink.queued:
            return
        self._waiting.discard(to)
        self._descriptors.forget(to)
        paused, self._paused = self._paused, []
        for fd, whose, lines in paused:
            self._watch(fd, whose, lines)
