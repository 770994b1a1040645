"""The wait for room at the broker, when as many tasks are open as it takes from one client.

What a program does then is its choice. `Client.submit` blocks; with `Client(queue_full="raise")` it
raises `QueueFull`; `Client.submit_async` lets other coroutines go on until there is room.

Rules of this file: looking is cheap and may be a little late; the broker has the last word, and
what it rejects as too much the session holds until there is room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from evener.errors import QueueFull
from evener.session import ClientSession

# When fewer places than this are free, each submission looks closer.
_CLOSE_TO_FULL: Final = 8_192

# How long a waiting thread goes without looking, should nobody tell it.
_LOOK_S: Final = 0.1


class Room:
    """Caller: any thread."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._condition = threading.Condition()
        self._wanted = 0

    def is_crowded(self) -> bool:
        """Whether the limits are near enough to look closer."""
        session = self._session
        tasks = session.tasks
        return (
            len(tasks) + _CLOSE_TO_FULL >= session.tasks_max
            or tasks.bytes >= session.bytes_max - session.bytes_max // 4
        )

    def is_full(self, size: int, waiting: int) -> bool:
        """Whether a payload of `size` bytes has to wait; `waiting` as for `wait`."""
        session = self._session
        tasks = session.tasks
        return len(tasks) + waiting >= session.tasks_max or (
            tasks.bytes > 0 and tasks.bytes + size > session.bytes_max
        )

    def flush(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Blocks until everything that was submitted is accepted; returns whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            self._wanted += 1
            try:
                while not is_done():
                    left = _LOOK_S if deadline is None else deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._condition.wait(min(left, _LOOK_S))
            finally:
                self._wanted -= 1
        return True

    def wait(self, size: int, waiting: Callable[[], int], is_over: Callable[[], bool]) -> None:
        """Blocks until a payload of `size` bytes has room. Raises `QueueFull` if it is not to wait.

        `waiting`: tasks submitted that the session does not know yet.
        """
        with self._condition:
            self._wanted += 1
            try:
                while not is_over() and self.is_full(size, waiting()):
                    if not self._session.hold_when_full:
                        raise QueueFull(self._text(waiting()))
                    self._condition.wait(_LOOK_S)
            finally:
                self._wanted -= 1

    def made(self) -> None:
        """Tasks may have ended: whoever waits looks again."""
        if self._wanted:
            with self._condition:
                self._condition.notify_all()

    def _text(self, waiting: int) -> str:
        session = self._session
        return (
            f"{len(session.tasks) + waiting} tasks of {session.tasks.bytes} bytes are open; the "
            f"broker takes {session.tasks_max} of {session.bytes_max} bytes from one client"
        )
