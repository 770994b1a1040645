"""Who watches the socket's descriptor: the I/O thread, or a thread that waits for one result.

Rules of this file: no messages, no session. At most one thread is the reader, and while there is
one the I/O thread's epoll is disarmed, so that a message wakes one thread and not two. A reader
says that it `left` before anything else, in a step that no signal handler can come between; so one
that Ctrl-C kept from giving back is known, and the I/O thread takes over when it next comes round.

The wake-ups go through eventfds. They are closed under the lock, so that nobody writes to a
descriptor that has become somebody else's.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

_IN: Final = select.EPOLLIN


class Reader:
    """A thread that reads for itself, until what it waits for is there."""

    __slots__ = ("done", "left", "outer", "thread")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.left = False
        self.thread = threading.get_ident()
        self.outer: Reader | None = None
        """What the thread was reading for when a signal handler made it read for this."""


class Watch:
    """Caller: any thread, unless a method says otherwise."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._epoll = select.epoll()
        self._io_wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._reader_wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._io_wake, _IN)
        self._epoll.register(fd, _IN)
        self._poller = select.poll()
        self._polled = -1
        self._reader: Reader | None = None
        self._gone = False
        # Held for a few instructions only, and only by `with`, which Ctrl-C cannot leave locked.
        self._lock = threading.Lock()

    # --- The reader -------------------------------------------------------------------------------

    def reader(self) -> Reader | None:
        """Who reads, if it is not the I/O thread."""
        return self._reader

    def take(self, me: Reader) -> bool:
        """Become the reader, if nobody is. Whoever calls must call `give_back` in any case."""
        with self._lock:
            reader = self._reader
            if reader is not None and not reader.left:
                if reader.thread != me.thread:
                    return False
                me.outer = reader
            self._reader = me
            self._modify(0)
            return True

    def give_back(self, me: Reader) -> None:
        """The I/O thread watches again, if it was `me` who did."""
        me.left = True
        with self._lock:
            if self._reader is me:
                self._reader = me.outer
                if me.outer is None:
                    self._modify(_IN)

    def heal(self) -> None:
        """Caller: the I/O thread. Takes over from a reader that left and could not say so."""
        reader = self._reader
        if reader is not None and reader.left:
            self.give_back(reader)

    def wait_readable(self, seconds: float | None) -> bool:
        """Caller: the reader. Blocks until the socket may have something, or somebody woke us."""
        poller = self._poller
        if self._polled != self._fd:
            if self._polled >= 0:
                poller.unregister(self._polled)
            else:
                poller.register(self._reader_wake, select.POLLIN)
            self._polled = self._fd
            poller.register(self._polled, select.POLLIN)
        milliseconds = None if seconds is None else min(max(1, int(seconds * 1000)), 1 << 30)
        readable = False
        for fd, _ in poller.poll(milliseconds):
            if fd == self._reader_wake:
                _empty(fd)
            else:
                readable = True
        return readable

    def wake_reader(self) -> None:
        """Its future has ended, or the socket is another."""
        self._write(self._reader_wake)

    # --- The I/O thread ---------------------------------------------------------------------------

    def wake_io(self) -> None:
        """Something is to be done that only the I/O thread does."""
        self._write(self._io_wake)

    def sleep(self, seconds: float) -> bool:
        """Caller: the I/O thread. Whether it was woken before the time was over."""
        ready = self._epoll.poll(seconds)
        for fd, _ in ready:
            if fd == self._io_wake:
                _empty(fd)
        return bool(ready)

    # --- The socket -------------------------------------------------------------------------------

    def release_fd(self) -> None:
        """Caller: who holds the connection's lock, before the socket is closed."""
        self._epoll.unregister(self._fd)

    def watch_fd(self, fd: int) -> None:
        """Caller: who holds the connection's lock, with a new socket."""
        self._fd = fd
        self._epoll.register(fd, 0 if self._reader is not None else _IN)
        self.wake_reader()

    def close(self) -> None:
        """Caller: the I/O thread, last of all."""
        with self._lock:
            self._gone = True
            self._epoll.close()
            os.close(self._io_wake)
            os.close(self._reader_wake)

    def _modify(self, mask: int) -> None:
        try:
            self._epoll.modify(self._fd, mask)
        except (OSError, ValueError):  # closed, or just being replaced: then `watch_fd` sees to it
            pass

    def _write(self, fd: int) -> None:
        with self._lock:
            if not self._gone:
                os.eventfd_write(fd, 1)


def _empty(fd: int) -> None:
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return


def seconds_left(deadline: float | None) -> float | None:
    """The seconds until then: 0.0 when it is past, None for ever."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
