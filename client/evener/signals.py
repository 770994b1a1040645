"""Signal handlers of the program, held back while its main thread is inside of a connection.

Python runs signal handlers in the main thread between any two instructions, and inside of zmq
calls after the message left the socket. A handler that raises there (Ctrl-C) would lose messages
or leave the session half changed. So a main thread that works on a connection does it between
`hold` and `release`; what came meanwhile is raised again after `release`, where nothing can be
lost. Waiting is never inside: Ctrl-C ends it at once. Other threads run no signal handlers and
need none of this.
"""

from __future__ import annotations

import signal
import threading
from importlib import import_module
from types import FrameType
from typing import Any, Final

_fast: Any = signal
try:
    # What `signal` wraps, without making an enum of each result: 20 times faster, and this is paid
    # on each round trip.
    _fast = import_module("_signal")
except ImportError:
    pass

# Those whose handlers raise, in programs that we have seen. Others may interrupt; should one of
# them raise, the connection ends with an error rather than being half changed.
_HELD: Final = tuple(
    int(number)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGALRM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGVTALRM,
        signal.SIGPROF,
    )
)


class SignalHold:
    """Holds signals back for the main thread. One per connection; not to be nested."""

    __slots__ = ("_came", "_handlers", "_main")

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Any]] = []
        self._came: list[int] = []
        self._main = threading.main_thread().ident

    def hold(self) -> None:
        """From here on no handler runs. Does nothing outside of the main thread.

        To be called inside of the `try` whose `finally` calls `release`: a handler may still raise
        in here.
        """
        if threading.get_ident() != self._main:
            return
        for number in _HELD:
            handler = _fast.getsignal(number)
            if callable(handler) and handler != self._note:
                self._handlers.append((number, handler))
                _fast.signal(number, self._note)

    def release(self) -> list[int]:
        """Puts the handlers back. Returns the signals that came, for `deliver`."""
        if threading.get_ident() != self._main:
            return []
        handlers = self._handlers
        while handlers:
            number, handler = handlers[-1]
            _fast.signal(number, handler)
            handlers.pop()
        came, self._came = self._came, []
        return came

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in self._came:
            self._came.append(number)


def deliver(numbers: list[int]) -> None:
    """Raises held signals again, for the handlers that are back in place."""
    for number in numbers:
        signal.raise_signal(number)
