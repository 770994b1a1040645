"""Signals as bytes in a pipe, for loops that wait on descriptors.

Rules of this file: main thread only, as Python's signal handlers are. The broker has the same in
its `server.py`: it imports nothing from here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from enum import Enum


@contextmanager
def signal_pipe(numbers: Iterable[int]) -> Generator[int]:
    """A descriptor from which the number of each of these signals can be read that came."""
    with ExitStack() as stack:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, before)
        for number in numbers:
            stack.callback(signal.signal, number, signal.signal(number, _note_nothing))
        yield reader


class Meaning(Enum):
    """Of a signal."""

    STOP = "stop"
    RELOAD = "reload"
    NOTHING = "nothing"


class Hangup:
    """What SIGHUP means: somebody wants new code, or the terminal was closed.

    Made before handlers are installed, so that it sees whether SIGHUP is ignored (`nohup`).
    """

    def __init__(self) -> None:
        self._ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = has_terminal()

    def means(self) -> Meaning:
        """To be asked once for each signal that came."""
        if not self._had_terminal or has_terminal():
            return Meaning.RELOAD
        self._had_terminal = False
        return Meaning.NOTHING if self._ignored else Meaning.STOP


def has_terminal() -> bool:
    """Whether this process has a terminal that can be used."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _note_nothing(number: int, frame: object) -> None:
    """Without a handler of ours Python would not write to the descriptor."""
