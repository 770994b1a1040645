"""SIGTERM in a program that stands in a `with` block of a client or cluster: it unwinds the block.

Python's default for SIGTERM is to end at once, without `finally`: then nobody drains, and no hook
runs. So while such a block runs in the main thread, and unless the program has a handler of its
own, the first SIGTERM raises SystemExit(143), and a second one has its default effect.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final

EXIT_CODE: Final = 128 + signal.SIGTERM


class Termination:
    """Caller: `__enter__` and `__exit__` of clients and clusters. One per process."""

    def __init__(self) -> None:
        self._holders: set[int] = set()

    def enter(self, holder: object) -> None:
        """A block begins. Does nothing outside of the main thread, where no handler can be set."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._holders.add(id(holder))
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_terminate)

    def leave(self, holder: object) -> None:
        """It has ended; with the last one everything is as it was."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._holders.discard(id(holder))
        if not self._holders and signal.getsignal(signal.SIGTERM) == self._on_terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(EXIT_CODE)


termination = Termination()
